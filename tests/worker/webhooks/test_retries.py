"""When a delivery is tried again, when it fails for good, and when its webhook is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.webhooks.fairness import Room, Wish, pace, paced, share
from worker.webhooks.retries import (
    DEFAULT_RETRIES,
    GIVE_UP_AFTER,
    GIVE_UP_FAILURES,
    JITTER,
    PLANS,
    Outcome,
    covered_s,
    delay_s,
    follow,
    gives_up,
    retry_after_s,
)

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def after(outcome: Outcome, *, tries: int = 1, max_retries: int = 3, plan: str = "short"):
    return follow(outcome, tries=tries, max_retries=max_retries, plan=plan, now=NOW, random=0.5)


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_only_2xx_is_success(code: int) -> None:
    assert after(Outcome(code)).status == "success"


@pytest.mark.parametrize("code", [100, 199, 300, 302, 400, 404, 500])
def test_everything_else_is_tried_again(code: int) -> None:
    assert after(Outcome(code)).status == "retrying"


def test_an_attempt_with_an_error_is_no_success() -> None:
    assert after(Outcome(200, error_class="timeout")).status == "retrying"


@pytest.mark.parametrize("error_class", ["refused", "template", "request", "secret"])
def test_what_is_no_fault_of_the_receiver_fails_at_once_and_is_not_charged(error_class: str) -> None:
    outcome = Outcome(error_class=error_class)
    assert (after(outcome).status, outcome.charged) == ("failed", False)


def test_gone_is_the_end() -> None:
    then = after(Outcome(410))
    assert (then.status, then.gone) == ("failed", True)


@pytest.mark.parametrize(("plan", "hours"), [("short", 0.0875), ("27h", 27.6), ("75h", 75.6)])
def test_a_plan_covers_the_outage_it_names(plan: str, hours: float) -> None:
    assert covered_s(plan, DEFAULT_RETRIES[plan]) / 3600 == pytest.approx(hours, abs=0.05)


@given(st.sampled_from(sorted(PLANS)), st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_waits_stay_within_a_fifth_of_the_plan(plan: str, tries: int, random: float) -> None:
    waits = PLANS[plan]
    planned = waits[min(tries, len(waits)) - 1]
    assert (1 - JITTER) * planned - 1e-6 <= delay_s(plan, tries, random) <= (1 + JITTER) * planned + 1e-6


def test_retry_after_pushes_the_next_attempt_and_holds_the_webhook() -> None:
    then = after(Outcome(503, retry_after_s=600))
    assert then.due_at == then.held_until == NOW + timedelta(seconds=600)
    soon = after(Outcome(429, retry_after_s=1))
    assert (soon.due_at, soon.held_until) == (NOW + timedelta(seconds=15), NOW + timedelta(seconds=1))
    assert after(Outcome(500, retry_after_s=600)).held_until is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("999999999999", 3600),
        ("Sun, 22 Nov 2026 09:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 08:00:00 GMT", 0),
        ("Sun, 22 Nov 2099 08:00:00 GMT", 3600),
        ("-5", None),
        ("soon", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_rfc_9110_says_and_bounded(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_a_webhook_is_given_up_after_days_of_many_failures_only() -> None:
    long_ago, lately = NOW - GIVE_UP_AFTER, NOW - GIVE_UP_AFTER + timedelta(seconds=1)
    assert gives_up(long_ago, GIVE_UP_FAILURES, NOW)
    assert not gives_up(lately, 10_000, NOW)
    assert not gives_up(long_ago, GIVE_UP_FAILURES - 1, NOW)
    assert not gives_up(None, 0, NOW)


def wish(n: int, **fields) -> Wish:
    from uuid import UUID

    values = {
        "concurrency": 10,
        "rate_per_s": None,
        "sending": 0,
        "failures": 0,
        "paced_to": None,
        "due_at": NOW,
    } | fields
    return Wish(webhook_id=UUID(int=n), **values)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60), st.integers(0, 5)), max_size=12),
    st.integers(-5, 100),
    st.integers(-5, 20),
)
def test_room_is_shared_within_every_limit(webhooks: list, sound: int, doubtful: int) -> None:
    wishes = [wish(n, concurrency=c, sending=s, failures=f) for n, (c, s, f) in enumerate(webhooks)]
    given_ = share(wishes, Room(sound, doubtful), NOW)
    for each in wishes:
        most = min(each.concurrency, 2) if each.doubtful else each.concurrency
        assert given_.get(each.webhook_id, 0) <= max(0, most - each.sending)
    lanes = [[w for w in wishes if w.doubtful == lane] for lane in (False, True)]
    for lane, room in zip(lanes, (sound, doubtful), strict=True):
        assert sum(given_.get(w.webhook_id, 0) for w in lane) <= max(0, room)


def test_whoever_has_least_under_way_comes_first() -> None:
    hungry, full = wish(1), wish(2, sending=5, concurrency=50, due_at=NOW - timedelta(hours=1))
    given_ = share([full, hungry], Room(7, 0), NOW)
    assert (given_[hungry.webhook_id], given_[full.webhook_id]) == (6, 1)


@given(st.sampled_from([0.1, 0.5, 1.0, 3.0, 50.0]), st.lists(st.floats(0.01, 30), min_size=1, max_size=50))
def test_a_rate_is_never_exceeded_by_more_than_one_second_of_it(rate: float, gaps: list[float]) -> None:
    paced_to, now, started = None, NOW, 0
    for gap in gaps:
        now += timedelta(seconds=gap)
        count = paced(paced_to, rate, now)
        if count:
            paced_to = pace(paced_to, rate, count, now)
        started += count
    assert started <= rate * sum(gaps) + max(1.0, rate) + 1e-3
