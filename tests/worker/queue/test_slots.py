"""One slot is kept for rescued jobs, and a slot is free as soon as its code has stopped."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from worker.db.base import new_id
from worker.queue.lanes import Lane
from worker.queue.slots import GRACE_S, RESCUE_SLOT_S, Execution, Slots

ORDINARY, RESCUED = Lane("default", "normal"), Lane("default", "rescue")
OLD_S = RESCUE_SLOT_S + 0.01


def execution(*, rescue: bool = False, busy_s: float = 0.0, timeout_s: float = 60.0) -> Execution:
    """An execution that has run for so long."""
    hold: Any = SimpleNamespace(claimed=SimpleNamespace(id=new_id(), timeout_s=timeout_s))
    return Execution(hold, rescue, started=time.monotonic() - busy_s)


def busy(slots: Slots, *executions: Execution) -> Slots:
    for each in executions:
        slots.start(each)
    return slots


def room(slots: Slots) -> tuple[int, int]:
    """How many ordinary and how many rescued jobs could start."""
    assert slots.free() == slots.free(ORDINARY)
    return slots.free(ORDINARY), slots.free(RESCUED)


# The reserved slot


def test_one_slot_is_kept_for_rescued_jobs() -> None:
    slots = Slots(3)
    assert room(slots) == (2, 3)
    assert room(busy(slots, execution(), execution())) == (0, 1)


@pytest.mark.parametrize("name", ["high", "normal", "low"])
def test_only_the_lane_of_rescued_jobs_may_use_the_reserve(name: str) -> None:
    assert Slots(2).free(Lane("default", name)) == 1


def test_a_worker_of_one_slot_keeps_none_back() -> None:
    assert room(Slots(1)) == (1, 1)


def test_a_rescued_job_that_has_just_started_uses_the_reserve_and_no_second_one_is_kept() -> None:
    assert room(busy(Slots(3), execution(rescue=True))) == (2, 2)
    assert room(busy(Slots(3), execution(rescue=True, busy_s=RESCUE_SLOT_S - 1))) == (2, 2)


def test_a_reserve_that_has_been_busy_for_long_is_replaced_by_the_next_slot_that_becomes_free() -> None:
    ordinary = [execution(), execution()]
    slots = busy(Slots(3), execution(rescue=True, busy_s=OLD_S), *ordinary)
    assert room(slots) == (0, 0)
    slots.stopped(ordinary[0])
    assert room(slots) == (0, 1)
    slots.stopped(ordinary[1])
    assert room(slots) == (1, 2)


def test_time_alone_replaces_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = busy(Slots(3), execution(rescue=True))
    now = time.monotonic()
    seen = []
    for passed in (0.0, RESCUE_SLOT_S - 0.5, RESCUE_SLOT_S + 0.5, 1000.0):
        monkeypatch.setattr("worker.queue.slots.time", SimpleNamespace(monotonic=lambda at=now + passed: at))
        seen.append(room(slots))
    assert seen == [(2, 2), (2, 2), (1, 2), (1, 2)]


def test_the_slot_that_replaced_the_reserve_takes_a_rescued_job_and_is_replaced_in_its_turn() -> None:
    slots = busy(Slots(4), execution(rescue=True, busy_s=OLD_S))
    assert room(slots) == (2, 3)
    assert room(busy(slots, execution(rescue=True))) == (2, 2)
    slots = busy(Slots(4), execution(rescue=True, busy_s=OLD_S), execution(rescue=True, busy_s=OLD_S))
    assert room(slots) == (1, 2)


@pytest.mark.parametrize("busy_s", [0.0, OLD_S])
def test_a_rescued_job_that_stops_gives_the_reserve_back(busy_s: float) -> None:
    rescued = execution(rescue=True, busy_s=busy_s)
    slots = busy(Slots(3), rescued)
    slots.stopped(rescued)
    assert room(slots) == (2, 3)


def test_an_ordinary_job_that_runs_in_the_last_slot_uses_no_reserve() -> None:
    assert room(busy(Slots(2), execution())) == (0, 1)


# Counting


def test_what_is_being_claimed_holds_a_slot() -> None:
    slots = Slots(4)
    slots.claiming = 2
    assert room(slots) == (1, 2)
    slots.claiming = 9
    assert room(slots) == (0, 0)


def test_a_slot_is_free_once_its_code_stopped_though_its_end_is_not_written() -> None:
    done = execution()
    slots = busy(Slots(3), done)
    slots.stopped(done)
    assert room(slots) == (2, 3)
    assert (slots.held, done.running) == ({done.id: done}, False)
    slots.written(done)
    assert slots.held == {}


def test_too_many_unwritten_ends_stop_every_start_until_one_is_written() -> None:
    slots = Slots(3, most_unwritten=2)
    done = [execution(), execution()]
    for each in done:
        busy(slots, each).stopped(each)
    assert room(slots) == (0, 0)
    slots.written(done[0])
    assert room(slots) == (2, 3)


def test_running_jobs_are_no_unwritten_ends() -> None:
    assert room(busy(Slots(4, most_unwritten=1), execution(), execution())) == (1, 2)


@pytest.mark.parametrize(("count", "most"), [(1, 1000), (50, 1000), (51, 1020)])
def test_at_least_a_thousand_ends_may_be_unwritten(count: int, most: int) -> None:
    assert Slots(count).most_unwritten == most


def test_closed_slots_take_nothing() -> None:
    slots = Slots(3)
    slots.closed = True
    assert room(slots) == (0, 0)


def test_an_end_that_is_written_late_leaves_the_jobs_next_execution_held() -> None:
    first = execution()
    second = Execution(first.hold, rescue=True)
    slots = busy(Slots(3), first)
    slots.stopped(first)
    slots.start(second)
    slots.written(first)
    assert slots.held == {first.id: second}


# Patience


def test_a_process_goes_half_a_minute_after_the_time_limit_or_after_a_sooner_wish_to_stop() -> None:
    one = execution(timeout_s=10)
    assert one.ends_by() == one.started + 10 + GRACE_S
    one.asked_at = one.started + 4
    assert one.ends_by() == one.started + 4 + GRACE_S
    one.asked_at = one.started + 11
    assert one.ends_by() == one.started + 10 + GRACE_S
