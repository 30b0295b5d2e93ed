"""The search language, without a database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.joblogs.search import JobFilter, Token, from_tokens, parse

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_reads_each_word_of_the_language() -> None:
    found = parse(
        'status:failed queue:mail job:send_email args.to:ada@example.com error:"timed out" tag:import '
        "after:2026-11-01 before:2026-11-02T10:30 worker:box:41 id:0193abcd user:ada smtp",
        NOW,
    )
    assert found.problems == ()
    assert found.statuses == ("failed",)
    assert found.queues == ("mail",)
    assert found.jobs == ("send_email",)
    assert found.args == (("to", "ada@example.com"),)
    assert found.errors == ("timed out",)
    assert found.tags == ("import",)
    assert found.after == datetime(2026, 11, 1, tzinfo=UTC)
    assert found.before == datetime(2026, 11, 2, 10, 30, tzinfo=UTC)
    assert found.workers == ("box:41",)
    assert found.ids == ("0193abcd",)
    assert found.users == ("ada",)
    assert found.text == ("smtp",)


def test_several_values_of_one_word_mean_any_of_them() -> None:
    assert parse("status:failed,cancelled queue:a queue:b", NOW).statuses == ("failed", "cancelled")
    assert parse("queue:a queue:b", NOW).queues == ("a", "b")


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("status:broken", "status:broken is not known. Allowed are scheduled, queued"),
        ("colour:red", "colour: is not a word of this search. Allowed are status"),
        ("after:yesterday", "'yesterday' is not a time: write 2026-11-01"),
        ("id:zzzz", "id:zzzz is not a job id"),
        ("schedule:nightly", "schedule:nightly is not the id of a schedule"),
        ("queue:", "queue: needs a value"),
        ("args.:x", "args.: needs the name of an argument"),
        ("after:2026-11-02 before:2026-11-01", "is not earlier than before:"),
        ("a\x00b", "control character"),
    ],
)
def test_names_the_wrong_token_and_what_is_allowed_and_keeps_what_was_typed(typed: str, named: str) -> None:
    found = parse(typed, NOW)
    assert named in "; ".join(found.problems)
    assert found.typed == typed


def test_says_when_a_search_is_too_long() -> None:
    assert "at most 1000" in parse("x" * 2000, NOW).problems[0]


def test_takes_an_address_and_a_quoted_word_as_text() -> None:
    assert parse('http://example.com "colour:red"', NOW).text == ("http://example.com", "colour:red")


def test_counts_a_span_back_from_now() -> None:
    assert parse("after:3h", NOW).after == datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@given(st.text(max_size=200))
def test_never_raises_whatever_is_typed(typed: str) -> None:
    parse(typed, NOW)


@given(
    st.lists(
        st.builds(
            Token,
            st.sampled_from(["", "queue", "error", "args.to", "user"]),
            st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc"]), min_size=1).filter(
                lambda text: not text.isspace() and "," not in text
            ),
        ),
        max_size=5,
    )
)
def test_a_filter_written_out_and_read_again_is_the_same(tokens: list[Token]) -> None:
    first = from_tokens(tokens, NOW)
    again = parse(first.query(), NOW) if len(first.query()) < 1000 else first
    assert again == first


def test_an_empty_search_filters_nothing() -> None:
    assert parse("   ", NOW) == JobFilter()
    assert parse("", NOW).empty
