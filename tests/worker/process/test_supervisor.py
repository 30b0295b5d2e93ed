"""What the supervisor makes of a child that has ended, and of one that says nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.worker.joblogs.conftest import Bench, bench
from worker.process.children import SILENT_S, Child
from worker.process.pulse import left_to_run
from worker.process.supervisor import Plan, Supervisor
from worker.queue.slots import GRACE_S
from worker.settings import Settings

__all__ = ["bench"]


class Graves:
    """Stands for the pulse: remembers whose jobs were to be taken back."""

    def __init__(self) -> None:
        self.buried: list[UUID] = []

    def look_up(self, worker_id: UUID, answer: Callable[[list[list[Any]]], None]) -> None:
        answer([[str(worker_id), 1, self.left_s]])

    left_s = 60.0
    """How long the job that the rows know of may go on."""

    def bury(self, worker_id: UUID, reason: str, **_: Any) -> None:
        self.buried.append(worker_id)


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


def test_a_child_that_may_take_its_time_to_leave_is_held_to_its_jobs_deadlines(tmp_path: Path) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    supervisor = Supervisor(settings, Plan(1, 1, "", "0-9"))
    supervisor._pulse = Graves()  # type: ignore[assignment]
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    now = time.monotonic()
    for place in supervisor.places:
        place.drained = True
    child = Child(uuid4(), supervisor.places[0].module, process, now, ready=True, leaving="an operator asked")
    child.held, child.held_at = [[str(uuid4()), 1, 5.0]], now
    supervisor.leaving.append(child)
    try:
        supervisor._tick(now + 4)
        assert (child.kill_at, child.overdue) == (None, set())
        supervisor._tick(now + 6)
        assert child.overdue == {UUID(child.held[0][0])}
        assert child.kill_at is not None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("wish", "filled"), [("drain", False), ("restart", True)])
def test_whom_an_operator_asks_to_leave_is_not_hurried_and_only_a_restarted_one_has_a_successor(
    tmp_path: Path, wish: str, filled: bool
) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    supervisor, spawned = Supervisor(settings, Plan(1, 1, "", "0-9")), []
    supervisor._pulse = Graves()  # type: ignore[assignment]
    supervisor._spawn = spawned.append  # type: ignore[method-assign,assignment]
    program = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: None); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    now = time.monotonic()
    place, clerk = supervisor.places
    clerk.drained = True
    place.child = child = Child(uuid4(), place.module, process, now, ready=True)
    try:
        supervisor._wish(child.worker_id, wish)
        supervisor._tick(now + 3600)
        assert (child in supervisor.leaving, child.kill_at, process.poll()) == (True, None, None)
        assert spawned == [place] * filled
        clerk.drained = False
        supervisor._restart_all()
        supervisor._tick(now + 3601)
        assert place in spawned
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
