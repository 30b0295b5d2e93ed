"""What a database would refuse is replaced, cut or refused with words before it is written."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.joblogs.conftest import Bench
from worker.joblogs.recorder import Outcome
from worker.joblogs.storable import (
    MAX_ERROR_CHARS,
    MAX_RESULT_BYTES,
    MAX_TRACEBACK_CHARS,
    Unstorable,
    fingerprint,
    result_json,
    text_of,
)

ANY_CHARACTER = st.characters(exclude_categories=())
"""Half surrogates too, which hypothesis leaves out by default."""
HALF = "\N{REPLACEMENT CHARACTER}"
LONGEST_INT = 10**4299 + 1
"""Python neither writes nor reads whole numbers of more than 4300 digits."""


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


# Results


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", '""'),
        ("é \N{PARTY POPPER}", '"é \N{PARTY POPPER}"'),
        ("a\0b\ud800c\udfff", f'"a{HALF}b{HALF}c{HALF}"'),
        ("\ud83c\udf89", f'"{HALF}{HALF}"'),
        ({"k\0": ["\udc80"]}, f'{{"k{HALF}":["{HALF}"]}}'),
        (math.nan, '"nan"'),
        ([math.inf, {"low": -math.inf}], '["inf",{"low":"-inf"}]'),
        (LONGEST_INT, str(LONGEST_INT)),
        ((1, 2), "[1,2]"),
        ({1: True, None: 0.5}, '{"1":true,"None":0.5}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_becomes_json_that_every_database_takes(value: Any, text: str | None) -> None:
    assert result_json(value) == text


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(ANY_CHARACTER),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_is_made_of_json_values_becomes_strict_json_without_unstorable_characters(
    value: Any,
) -> None:
    text = result_json(value)
    if value is None:
        assert text is None
        return
    assert text is not None
    assert "\0" not in text
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()  # raises for half a pair
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("value", "kind", "cause"),
    [
        (object(), "object", "Unable to serialize unknown type"),
        ({"deep": [1, object()]}, "dict", "Unable to serialize unknown type"),
        (
            test_a_result_becomes_json_that_every_database_takes,
            "function",
            "Unable to serialize unknown type",
        ),
        (ValueError("no"), "ValueError", "Unable to serialize unknown type"),
        (b"\xff", "bytes", "invalid utf-8"),
        (10**4300, "int", "Exceeds the limit"),
        ({"n": -(10**5000)}, "dict", "Exceeds the limit"),
        (nested(300), "list", "depth exceeded"),
        (nested(100_000), "list", "depth exceeded"),
        (endless(), "list", "Circular reference"),
    ],
    ids=[
        "object",
        "inside",
        "function",
        "error",
        "bytes",
        "digits",
        "inner digits",
        "deep",
        "abyss",
        "endless",
    ],
)
def test_a_result_that_is_not_made_of_json_values_is_refused_with_its_type_and_the_cause(
    value: Any, kind: str, cause: str
) -> None:
    with pytest.raises(Unstorable) as refused:
        result_json(value)
    words = str(refused.value)
    assert words.startswith(f"the result is of type {kind}, which is not made of JSON values (objects, lists")
    assert cause in words
    assert len(words) < 600


@pytest.mark.parametrize("character", ["x", "é", "\N{PARTY POPPER}", '"'])
def test_a_result_may_have_a_megabyte_of_bytes_and_not_one_more(character: str) -> None:
    size = len(json.dumps(character, ensure_ascii=False).encode()) - 2
    most, rest = divmod(MAX_RESULT_BYTES - 2, size)
    whole = character * most + "x" * rest
    text = result_json(whole)
    assert text is not None
    assert len(text.encode()) == MAX_RESULT_BYTES
    with pytest.raises(
        Unstorable, match=r"^the result is 1,000,001 bytes of JSON; at most 1,000,000 can be kept$"
    ):
        result_json(whole + "x")


@pytest.mark.parametrize(
    "value", [LONGEST_INT, [LONGEST_INT], nested(254), "x" * (MAX_RESULT_BYTES - 2)], ids=type
)
async def test_the_largest_results_are_stored_and_read_as_they_were(bench: Bench, value: Any) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    assert await recorder.finish(Outcome(claimed, "success", result=result_json(value)))
    row = await bench.row(claimed.id)
    assert row.status == "success"
    assert row.result == value


async def test_replaced_characters_and_words_for_numbers_are_stored_and_read(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    value = {"nul\0": "half \ud800 a pair", "n": [math.nan, -math.inf]}
    assert await recorder.finish(Outcome(claimed, "success", result=result_json(value)))
    assert (await bench.row(claimed.id)).result == {
        f"nul{HALF}": f"half {HALF} a pair",
        "n": ["nan", "-inf"],
    }


# Texts


@settings(deadline=None)
@given(st.text(ANY_CHARACTER, max_size=200), st.integers(3, 100))
def test_a_text_is_clean_and_loses_only_its_middle(text: str, limit: int) -> None:
    kept = text_of(text, limit)
    kept.encode()
    assert "\0" not in kept
    clean = "".join(HALF if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)
    if len(text) <= limit:
        assert kept == clean
        return
    head, tail = limit // 3, limit - limit // 3
    assert kept == f"{clean[:head]}\n… {len(text) - limit} characters left out …\n{clean[-tail:]}"


def test_a_long_text_keeps_a_third_of_its_limit_from_the_start_and_the_rest_from_the_end() -> None:
    assert text_of("s" * 100_000 + "e" * 100_000, 9) == "sss\n… 199,991 characters left out …\neeeeee"
    assert text_of("x" * MAX_ERROR_CHARS) == "x" * MAX_ERROR_CHARS
    assert "\n… 1 characters left out …\n" in text_of("x" * (MAX_ERROR_CHARS + 1))


@pytest.mark.parametrize("status", ["failed", "retrying"])
async def test_an_error_with_a_nul_and_half_a_pair_is_stored_with_its_job_and_its_attempt(
    bench: Bench, status: Any
) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    harmless = await bench.running(recorder)
    broken = Outcome(claimed, status, error="E: \0 and \ud800", traceback="at \udfff\0", retry_after_s=60)
    assert await recorder.finish(broken)
    assert await recorder.finish(Outcome(harmless, "success"))
    row, [attempt] = await bench.row(claimed.id), await bench.attempts(claimed.id)
    assert (row.status, row.reason) == (status, None)
    for kept in (row, attempt):
        assert (kept.error, kept.traceback) == (f"E: {HALF} and {HALF}", f"at {HALF}{HALF}")


async def test_a_long_error_and_traceback_are_stored_cut(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    error, trace = "first" + "." * 100_000 + "last", "top" + "\n" * 100_000 + "bottom"
    assert await recorder.finish(Outcome(claimed, "failed", error=error, traceback=trace))
    row, [attempt] = await bench.row(claimed.id), await bench.attempts(claimed.id)
    for kept in (row, attempt):
        assert kept.error is not None
        assert kept.traceback is not None
        assert kept.error.startswith("first.")
        assert kept.error.endswith(".last")
        assert MAX_ERROR_CHARS < len(kept.error) < MAX_ERROR_CHARS + 50
        assert kept.traceback.startswith("top\n")
        assert kept.traceback.endswith("\nbottom")
        assert MAX_TRACEBACK_CHARS < len(kept.traceback) < MAX_TRACEBACK_CHARS + 50


# Fingerprints

TRACE = 'File "/app/run.py", line 3, in run\nFile "/app/jobs.py", line {}, in add'


def test_failures_of_one_cause_share_a_fingerprint_whatever_their_numbers() -> None:
    ids = ("0198c0de-0000-7000-8000-00000000000a", "0198c0de-ffff-7000-8000-00000000000b")
    one, two = (
        fingerprint("add", f"KeyError: {n} at 0x{n:x}f of {ids[n - 7]}", TRACE.format(n)) for n in (7, 8)
    )
    assert one == two
    assert len(one) == 32


@pytest.mark.parametrize(
    ("name", "error", "trace"),
    [
        ("mail", "KeyError: 1", TRACE.format(7)),
        ("add", "ValueError: 1", TRACE.format(7)),
        ("add", "KeyError: 1", TRACE.format(7).replace("in add", "in other")),
        ("add", "KeyError: 1", None),
    ],
)
def test_another_job_error_or_last_line_of_code_is_another_fingerprint(
    name: str, error: str, trace: str | None
) -> None:
    assert fingerprint(name, error, trace) != fingerprint("add", "KeyError: 1", TRACE.format(7))


def test_a_fingerprint_is_made_of_half_surrogates_too() -> None:
    assert fingerprint("add", "\ud800", None) == fingerprint("add", "?", None)
