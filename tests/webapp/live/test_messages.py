"""What a page may say: pairs to watch and rows to fetch, bounded, nothing else."""

from __future__ import annotations

import json

import pytest

from webapp.live.messages import BadMessage, keys_of, parse
from webapp.live.watch import Key


def test_pairs_become_keys():
    message = parse('{"watch": [["job-row:1", "7"], ["counters:all", ""]]}')
    assert keys_of(message.watch) == [(Key("job-row", "1"), "7"), (Key("counters", "all"), "")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "retry job 1",
        '{"watch": 1}',
        '{"watch": [["a"]]}',
        '{"watch": [["a", 1]]}',
        '{"watch": [["a", "' + "9" * 81 + '"]]}',
        '{"watch": [["' + "k" * 1101 + '", ""]]}',
        '{"cancel": "job-1"}',
        '{"rows": {"key": "job-list:", "after": "", "limit": 1000}}',
        '{"rows": {"key": "job-list:", "after": "", "limit": 0}}',
        "[" * 100_000,
        json.dumps({"watch": [["job-row:1", "1"]] * 2002}),
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(BadMessage):
        parse(text)
