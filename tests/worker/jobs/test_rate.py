"""The rule behind rate limits: never more than the burst and what the time brings, and never less for no reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.rate import Rate, parse_rate, rate_words, split_rate

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
RATES = st.builds(Rate, st.timedeltas(timedelta(milliseconds=1), timedelta(seconds=5)), st.integers(1, 20))
STEPS = st.lists(
    st.tuples(st.timedeltas(timedelta(0), timedelta(seconds=8)), st.integers(1, 30)), min_size=1, max_size=60
)


@given(RATES, STEPS)
def test_no_span_of_time_holds_more_than_the_burst_and_what_it_brings(
    rate: Rate, steps: list[tuple[timedelta, int]]
) -> None:
    now, tat = NOON, None
    starts: list[datetime] = []
    for pause, wanted in steps:
        now += pause
        granted, tat = rate.take(tat, now, wanted)
        assert 0 <= granted <= wanted
        starts += [now] * granted
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= rate.burst + (starts[last] - begin) // rate.interval


@given(RATES, STEPS)
def test_what_is_ready_starts_and_what_is_not_starts_when_it_is_said_to(
    rate: Rate, steps: list[tuple[timedelta, int]]
) -> None:
    now, tat = NOON, None
    for pause, wanted in steps:
        now += pause
        ready = rate.ready_at(tat, now)
        assert rate.take(tat, ready, 1).granted == 1
        assert ready == now or rate.take(tat, ready - MICROSECOND, 1).granted == 0
        tat = rate.take(tat, now, wanted).tat


@given(RATES, STEPS)
def test_at_once_is_as_good_as_one_by_one(rate: Rate, steps: list[tuple[timedelta, int]]) -> None:
    now, together, singly = NOON, None, None
    for pause, wanted in steps:
        now += pause
        granted, together = rate.take(together, now, wanted)
        one_by_one = 0
        for _ in range(wanted):
            one, singly = rate.take(singly, now, 1)
            one_by_one += one
        assert (granted, together) == (one_by_one, singly)


@given(RATES, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_clock_that_is_set_back_holds_nothing_up_for_longer_than_the_rate(
    rate: Rate, back: timedelta
) -> None:
    _, tat = rate.take(None, NOON, rate.burst)
    earlier = NOON - back
    assert rate.ready_at(tat, earlier) - earlier <= rate.interval


@pytest.mark.parametrize(
    ("text", "per_s", "words"),
    [("5/s", 5.0, "5 a second"), ("30/m", 0.5, "30 a minute"), (" 100 per hour", 100 / 3600, "100 an hour"),
     ("1/d", 1 / 86400, "1 a day"), ("0.5/s", 0.5, "30 a minute"), ("10000/s", 10_000.0, "10000 a second")],
)  # fmt: skip
def test_a_rate_is_read_and_said_in_the_unit_that_fits(text: str, per_s: float, words: str) -> None:
    assert parse_rate(text) == pytest.approx(per_s)
    assert rate_words(parse_rate(text)) == words


@given(st.integers(1, 5000), st.sampled_from("smhd"))
def test_what_a_person_typed_is_what_stands_in_the_form(number: int, unit: str) -> None:
    per_s = parse_rate(f"{number}/{unit}")
    said, best = split_rate(per_s)
    assert parse_rate(f"{said:g}/{best}") == pytest.approx(per_s, rel=1e-4)


@pytest.mark.parametrize(
    "text", ["", "5", "0/s", "-1/s", "5/w", "20000/s", "0.1/d", "nan/s", "5/s; 6/s", "1e3/s"]
)
def test_what_is_no_rate_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="like 5/s, 30/m"):
        parse_rate(text)


def test_a_rate_without_a_burst_gets_a_tenth_of_a_second_of_it() -> None:
    assert Rate.of(0.5).burst == 1
    assert Rate.of(10).burst == 1
    assert Rate.of(1000).burst == 100
    assert Rate.of(1000, 5).burst == 5
