"""What the supervisor makes of a child that has ended, and of one that says nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.worker.joblogs.conftest import Bench, bench
from worker.process.children import SILENT_S, Child, Place
from worker.process.entry import FAILED
from worker.process.pulse import Pulse, left_to_run
from worker.process.supervisor import KILL_AFTER_S, Plan, Supervisor
from worker.queue.slots import GRACE_S
from worker.settings import Settings

__all__ = ["bench"]


class Graves:
    """Stands for the pulse: remembers whose jobs were to be taken back."""

    def __init__(self) -> None:
        self.buried: list[UUID] = []
        self.reasons: list[tuple[str, bool]] = []
        self.overdue: set[UUID] = set()

    def look_up(self, worker_id: UUID, answer: Callable[[list[list[Any]]], None]) -> None:
        answer([[str(worker_id), 1, self.left_s]])

    left_s = 60.0
    """How long the job that the rows know of may go on."""

    def bury(self, worker_id: UUID, reason: str, *, lost: bool, overdue: set[UUID]) -> None:
        self.buried.append(worker_id)
        self.overdue |= overdue
        self.reasons.append((reason, lost))


@pytest.mark.parametrize(
    ("ready", "code", "buried"),
    [(False, 1, False), (False, 78, False), (True, 1, True), (False, -9, True), (True, -9, True)],
)
def test_only_a_child_that_may_have_held_jobs_is_buried(
    tmp_path: Path, ready: bool, code: int, buried: bool
) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    supervisor, graves = Supervisor(settings, Plan(1, 1, "", "0-9")), Graves()
    supervisor._pulse = graves  # type: ignore[assignment]
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    child = Child(uuid4(), "worker.process.child", process, time.monotonic(), ready=ready)
    supervisor.places[0].child = child
    supervisor._ended(child, code)
    assert graves.buried == [child.worker_id] * buried


@pytest.mark.parametrize(("left_s", "replaced"), [(60.0, False), (-1.0, True)])
def test_a_child_whose_loop_is_blocked_cannot_hide_a_job_that_is_past_its_limit(
    tmp_path: Path, left_s: float, replaced: bool
) -> None:
    """It never said that it had claimed the job; the job's row did."""
    settings = Settings.from_env({"M_HOME": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    supervisor, pulse = Supervisor(settings, Plan(1, 1, "", "0-9")), Graves()
    supervisor._pulse = pulse  # type: ignore[assignment]
    pulse.left_s = left_s
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    now = time.monotonic()
    place = supervisor.places[0]
    place.child = child = Child(uuid4(), place.module, process, now, ready=True, heard_at=now)
    try:
        supervisor._look_after(place, now + SILENT_S - 1)
        assert supervisor._events.empty()
        supervisor._look_after(place, now + SILENT_S + 1)
        supervisor._events.get()()
        supervisor._look_after(place, now + SILENT_S + 2)
        assert (place.child is not child) == replaced
        assert (child in supervisor.leaving) == replaced
        assert child.overdue == ({child.worker_id} if replaced else set())
    finally:
        process.kill()
        process.wait()


async def test_the_rows_tell_what_a_worker_holds_and_until_when(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder, timeout_s=5.0)
    [[job_id, epoch, left_s]] = await left_to_run(bench.database, recorder.worker_id)
    assert (job_id, epoch) == (str(claimed.id), 1)
    assert 0 < left_s <= 5.0 + GRACE_S


# Leaving in one's own time: drains and restarts that operators asked for, and retirement


class Yard:
    """A supervisor of one place, whose children are sleeping processes that take SIGUSR1 in silence."""

    def __init__(self, home: Path) -> None:
        settings = Settings.from_env({"M_HOME": str(home), "NATS_URL": "nats://127.0.0.1:1"})
        self.supervisor, self.graves = Supervisor(settings, Plan(1, 1, "", "0-9")), Graves()
        self.supervisor._pulse = self.graves  # type: ignore[assignment]
        self.supervisor._spawn = self.spawn  # type: ignore[method-assign]
        self.supervisor._load_anew = lambda: None  # type: ignore[method-assign]
        self.place, self.clerk = self.supervisor.places
        self.clerk.drained = True
        self.spawned: list[Child] = []
        self.now = time.monotonic()

    def spawn(self, place: Place) -> Child:
        program = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: None); print(flush=True); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        child = Child(uuid4(), place.module, process, self.now, place.name, ready=True, heard_at=self.now)
        self.spawned.append(child)
        return child

    def tick(self, later_s: float) -> None:
        self.supervisor._tick(self.now + later_s)

    def leaving(self, wish: str) -> Child:
        """The first child, asked by an operator."""
        self.tick(0)
        child = self.spawned[0]
        self.supervisor._wish(child.worker_id, wish)
        return child

    def close(self) -> None:
        for child in self.spawned:
            child.process.kill()
            child.process.wait()
            assert child.process.stdout is not None
            child.process.stdout.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    yard.close()


def holding(child: Child, left_s: float, at: float) -> None:
    child.held, child.held_at, child.heard_at = [[str(uuid4()), 1, left_s]], at, at


@pytest.mark.parametrize(("wish", "filled"), [("drain", False), ("restart", True)])
def test_whom_an_operator_asks_to_leave_is_not_hurried_and_only_a_restarted_one_has_a_successor(
    yard: Yard, wish: str, filled: bool
) -> None:
    child = yard.leaving(wish)
    holding(child, 7200, yard.now + 3600)
    yard.tick(3600)
    yard.supervisor._wish(child.worker_id, wish)  # the next beat says it again
    yard.tick(3601)
    assert (child in yard.supervisor.leaving, child.kill_at, child.process.poll()) == (True, None, None)
    assert len(yard.spawned) == 1 + filled


def test_a_drained_place_is_filled_when_every_child_is_replaced_and_stays_so(yard: Yard) -> None:
    child = yard.leaving("drain")
    yard.tick(1)
    assert yard.place.child is None
    yard.supervisor._restart_all()
    yard.tick(2)
    yard.supervisor._wish(child.worker_id, "drain")  # it still leaves, and its row still says so
    assert yard.place.child is yard.spawned[1]
    assert not yard.spawned[1].leaving


def test_a_drain_that_meets_a_child_on_its_way_out_drains_its_successor(yard: Yard) -> None:
    yard.tick(0)
    yard.supervisor._replace(yard.place, "it has run 5 jobs", patient=True)
    yard.tick(1)
    first, second = yard.spawned
    yard.supervisor._wish(first.worker_id, "drain")
    assert (second.leaving, yard.place.child) == ("an operator asked for a drain", None)
    yard.tick(2)
    assert len(yard.spawned) == 2


def test_a_child_that_may_take_its_time_to_leave_is_held_to_its_jobs_deadlines(yard: Yard) -> None:
    child = yard.leaving("drain")
    holding(child, 5.0, yard.now)
    yard.tick(4)
    assert (child.kill_at, child.overdue) == (None, set())
    yard.tick(6)
    assert child.overdue == {UUID(child.held[0][0])}
    assert (child.kill_at is not None, child.leaving) == (True, "1 job(s) do not stop")


def test_a_child_that_holds_nothing_and_does_not_react_does_not_leave_for_ever(yard: Yard) -> None:
    child = yard.leaving("restart")
    yard.graves.look_up = lambda *_: None  # type: ignore[method-assign]
    left_s = child.left_at - yard.now
    yard.tick(left_s + KILL_AFTER_S - 2)
    assert child.kill_at is None
    yard.tick(left_s + KILL_AFTER_S + 2)
    assert child.kill_at is not None


def test_a_child_that_others_declared_dead_has_no_more_time(yard: Yard) -> None:
    child = yard.leaving("drain")
    yard.supervisor._wish(child.worker_id, "ended")
    assert (child.kill_at is not None, child.leaving) == (True, "others had declared it dead")


def test_a_supervisor_that_stops_hurries_those_that_leave(yard: Yard) -> None:
    child = yard.leaving("drain")
    yard.supervisor._stop()
    assert child.kill_at is not None


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, ("an operator asked for a drain", False)), (-11, ("its process ended with SIGSEGV", True))],
)
def test_a_child_that_dies_while_it_may_take_its_time_is_lost_like_any_other(
    yard: Yard, code: int, told: tuple[str, bool]
) -> None:
    child = yard.leaving("drain")
    yard.supervisor._ended(child, code)
    assert yard.graves.reasons == [told]


def test_a_drain_that_its_child_did_not_live_to_hear_is_for_its_successor(yard: Yard) -> None:
    yard.tick(0)
    (first,) = yard.spawned
    yard.supervisor._ended(first, -9)
    yard.tick(1)
    yard.supervisor._wish(first.worker_id, "drain")  # its burial found it in the row
    assert (yard.spawned[1].leaving, yard.place.drained) == ("an operator asked for a drain", True)


def test_a_job_whose_time_ends_while_its_child_leaves_for_another_has_timed_out_too(yard: Yard) -> None:
    yard.tick(0)
    (child,) = yard.spawned
    jobs = [uuid4() for _ in range(3)]
    child.held = [[str(job), 1, left_s] for job, left_s in zip(jobs, (-2.0, -0.5, 3600.0), strict=True)]
    child.held_at = time.monotonic() - 1
    yard.supervisor._look_after(yard.place, child.held_at - 1)
    assert child.overdue == {jobs[0]}
    yard.supervisor._ended(child, -9)
    assert yard.graves.overdue == set(jobs[:2])


# Without beats


def test_children_that_nobody_beats_for_have_ended_before_others_take_their_jobs(yard: Yard) -> None:
    child = yard.leaving("drain")
    yard.tick(1)
    yard.supervisor._pulse_ended()
    yard.supervisor._hear()
    assert child.kill_at is not None
    assert child.kill_at < time.monotonic() + yard.supervisor.settings.lease_s * 2 / 3
    assert yard.supervisor.code == FAILED


def test_a_pulse_that_cannot_begin_tells_it_and_takes_what_it_is_asked_in_silence(tmp_path: Path) -> None:
    settings = replace(Settings.from_env({"M_HOME": str(tmp_path)}), database_url="nonsense://")
    ended: list[bool] = []
    pulse = Pulse(settings, list, lambda *_: None, lambda: ended.append(True))
    pulse.start()
    pulse.bury(uuid4(), "killed", lost=True)
    pulse.stop()
    assert ended == [True]


def test_a_pulse_that_was_stopped_does_not_tell_that_it_has_ended(tmp_path: Path) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path)})
    ended: list[bool] = []
    pulse = Pulse(settings, list, lambda *_: None, lambda: ended.append(True))
    pulse.start()
    pulse.stop()
    assert ended == []
