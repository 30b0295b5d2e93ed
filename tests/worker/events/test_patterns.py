"""Patterns over topics: one word, or all that follow, and nothing that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.events import patterns

WORDS = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,8}\Z")
TOPICS = st.lists(WORDS, min_size=1, max_size=5).map(".".join)


@pytest.mark.parametrize(
    ("pattern", "topic", "means"),
    [
        ("job.succeeded", "job.succeeded", True),
        ("job.succeeded", "job.succeeded.twice", False),
        ("job.*", "job.failed", True),
        ("job.*", "job", False),
        ("job.*", "job.a.b", False),
        ("job.>", "job.failed", True),
        ("job.>", "job.a.b.c", True),
        ("job.>", "job", False),
        ("job.>", "jobs.failed", False),
        ("*.created", "doc.created", True),
        ("*.created", "doc.updated", False),
        ("*.>", "doc.created", True),
        ("*.>", "doc", False),
        (">", "doc", True),
        (">", "doc.created.now", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
    ],
)
def test_a_star_is_one_word_and_an_arrow_is_one_or_more(pattern, topic, means):
    assert patterns.problem(pattern) is None
    assert patterns.matches(pattern, topic) is means


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        ">.a",
        "a.>.b",
        "A.b",
        "a b",
        "job*",
        "*job",
        ">>",
        "a.**",
        "é",
        "a\n",
        "x" * 301,
        "x" * 64,
    ],
)
def test_what_is_no_pattern_is_refused_with_words(pattern):
    assert patterns.problem(pattern)


@given(TOPICS)
def test_every_topic_is_matched_by_itself_and_by_everything(topic):
    assert patterns.problem(topic) is None
    assert patterns.matches(topic, topic)
    assert patterns.matches(">", topic)
    assert patterns.matches(".".join("*" for _ in topic.split(".")), topic)


@given(TOPICS, TOPICS)
def test_an_arrow_matches_exactly_the_longer_topics_that_begin_so(prefix, topic):
    assert patterns.matches(prefix + ".>", topic) is topic.startswith(prefix + ".")


@pytest.mark.parametrize(
    ("pattern", "is_open"), [(">", True), ("*.created", True), ("*", True), ("job.>", False), ("a.*", False)]
)
def test_a_wildcard_in_front_means_topics_of_every_kind(pattern, is_open):
    assert patterns.is_open(pattern) is is_open
