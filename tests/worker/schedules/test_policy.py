"""What becomes of instants that are due, late or missed: every one of them is decided, in order, and once."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.schedules.oracle import utc
from worker.schedules.cron import Rule
from worker.schedules.policy import AT_ONCE, KEPT_MISSED, MISSED, Missed, jitter_s, plan

DAY = timedelta(days=1)
NOON = utc(2026, 3, 1, 12)
HOURLY, EACH_SECOND = Rule("0 * * * *"), Rule("* * * * * *")


def outcome(
    rule: Rule, hours_late: float, missed: Missed, catch_up: timedelta = DAY
) -> list[tuple[str, bool]]:
    """Which hours are decided when the clock comes this much after the instant of noon, and whether they fire."""
    made = plan(rule, NOON, NOON + timedelta(hours=hours_late), missed, catch_up)
    assert made.next_fire_at == rule.next(NOON + timedelta(hours=hours_late))
    return [(f"{due.at:%H}", due.fires) for due in made.due]


def test_an_instant_that_is_due_now_fires_whatever_the_policy() -> None:
    for missed in MISSED:
        assert outcome(HOURLY, 0, missed) == [("12", True)]
        assert outcome(HOURLY, 15 / 3600, missed) == [("12", True)]


@pytest.mark.parametrize(
    ("missed", "hours_late", "expected"),
    [
        ("skip", 0.5, [("12", False)]),
        ("skip", 2, [("12", False), ("13", False), ("14", True)]),
        ("latest", 0.5, [("12", True)]),
        ("latest", 2.5, [("12", False), ("13", False), ("14", True)]),
        ("latest", 2, [("12", False), ("13", False), ("14", True)]),
        ("all", 2.5, [("12", True), ("13", True), ("14", True)]),
    ],
)
def test_what_was_missed(missed: Missed, hours_late: float, expected: list[tuple[str, bool]]) -> None:
    assert outcome(HOURLY, hours_late, missed) == expected


def test_what_is_older_than_the_window_is_never_caught_up() -> None:
    hour = timedelta(hours=1)
    assert outcome(HOURLY, 2.5, "all", hour) == [("12", False), ("13", False), ("14", True)]
    assert outcome(Rule("0 12 * * *"), 2.5, "latest", hour) == [("12", False)]
    assert outcome(Rule("0 12 * * *"), 2.5, "all", hour) == [("12", False)]


def test_a_long_time_without_a_clock_is_told_in_few_rows() -> None:
    made = plan(EACH_SECOND, NOON, NOON + 10 * DAY, "skip", DAY)
    assert len(made.due) <= KEPT_MISSED + 20
    assert made.due[0].at == NOON
    assert made.due[0].through is not None
    assert all(due.fires for due in made.due[-15:])


def test_catching_up_comes_in_portions_that_leave_nothing_out() -> None:
    now, next_fire_at, fired = NOON + timedelta(seconds=500), NOON, []
    while next_fire_at is not None and next_fire_at <= now:
        made = plan(EACH_SECOND, next_fire_at, now, "all", DAY)
        assert len(made.due) <= AT_ONCE
        fired += [due.at for due in made.due if due.fires]
        next_fire_at = made.next_fire_at
    assert fired == [NOON + timedelta(seconds=second) for second in range(501)]


expressions = st.sampled_from(
    ("* * * * * *", "*/7 * * * * *", "* * * * *", "*/15 * * * *", "0 * * * *", "0 2 * * *", "every 90s")
)


@settings(deadline=None, max_examples=60)
@given(
    expressions,
    st.sampled_from(MISSED),
    st.lists(st.integers(0, 400_000), min_size=1, max_size=12),
    st.integers(0, 3000),
)
def test_every_instant_is_decided_once_however_the_clock_wakes_up(
    expression: str, missed: Missed, pauses: list[int], catch_up_s: int
) -> None:
    rule = Rule(expression, "Europe/Warsaw")
    start = utc(2026, 10, 24, 20)
    next_fire_at, now = rule.next(start), start
    decided = []
    for pause in pauses:
        now += timedelta(seconds=pause)
        for _ in range(4000):
            if next_fire_at is None or next_fire_at > now:
                break
            made = plan(rule, next_fire_at, now, missed, timedelta(seconds=catch_up_s))
            assert made.due
            assert made.due[0].at == next_fire_at
            decided += made.due
            next_fire_at = made.next_fire_at
    told = [due.at for due in decided]
    assert told == sorted(set(told))
    assert next_fire_at == rule.next(now)
    last = start
    for (
        due
    ) in decided:  # no instant lies between two that were decided, but where one stands for a row of them
        assert rule.next(last) == due.at
        last = due.through or due.at
    assert rule.next(last) == next_fire_at


@given(st.uuids(), st.integers(0, 10**6), st.floats(0, 86_400))
def test_jitter_is_the_same_whoever_asks_and_never_longer_than_wanted(
    of: UUID, second: int, longest_s: float
) -> None:
    at = utc(2026, 1, 1) + timedelta(seconds=second)
    assert jitter_s(of, at, longest_s) == jitter_s(of, at, longest_s)
    assert 0 <= jitter_s(of, at, longest_s) <= longest_s
