"""What others' queues got wrong, each as a test: late writers, snapshots, rescue by age, races between ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from tests.worker.joblogs.conftest import ADA, Bench
from worker.errors import TooLate
from worker.joblogs import actions, sweeper
from worker.joblogs.claims import Claimed
from worker.joblogs.models import JobLog
from worker.joblogs.recorder import Outcome, Recorder
from worker.joblogs.sweeper import Observations, rescue_lost, rescue_worker
from worker.process import presence

RACES = 300 if os.environ.get("CHAOS_SIZE") == "full" else 60
"""The chaos set runs a thousand of them through processes."""
AT_ONCE = 20
LATE = ("success", "failed", "retrying", "queued", "cancelled", "lost")
"""Finish, fail, snooze, release, cancel, loss."""


async def whole_row(bench: Bench, job_id: UUID) -> dict[str, Any]:
    """Every column as it is stored."""
    async with bench.database.read() as connection:
        found = await connection.execute(sa.select(JobLog.__table__).where(JobLog.id == job_id))
        return dict(found.one()._mapping)


async def write_late(recorder: Recorder, held: Claimed) -> None:
    for status in LATE:
        late = Outcome(held, status, result="1", error="late", retry_after_s=1.0)  # type: ignore[arg-type]
        assert not await recorder.finish(late)


@pytest.mark.parametrize("end", ["success", "failed", "retrying", "queued", "cancelled"])
async def test_nothing_that_an_older_epoch_writes_changes_a_byte_after_the_newer_one_ended(
    bench: Bench, end: str
) -> None:
    old, new = await bench.recorder(), await bench.recorder()
    first = await bench.running(old)
    await rescue_worker(bench.database, old.worker_id, "frozen")
    second = await new.claim(first.id)
    assert second is not None
    assert await new.finish(Outcome(second, end, result="2", error="e", retry_after_s=60.0))  # type: ignore[arg-type]
    before = await whole_row(bench, first.id)
    await write_late(old, first)
    await write_late(new, second)
    assert await whole_row(bench, first.id) == before


async def test_a_rescued_job_stays_queued_whatever_its_old_worker_says(bench: Bench) -> None:
    old = await bench.recorder()
    held = await bench.running(old)
    await rescue_worker(bench.database, old.worker_id, "frozen")
    before = await whole_row(bench, held.id)
    await write_late(old, held)
    assert await whole_row(bench, held.id) == before
    assert before["status"] == "queued"


async def test_an_end_between_the_sweepers_look_and_its_write_is_one_or_the_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    held = await bench.running(recorder)
    on_loss = sweeper._on_loss
    ends: list[asyncio.Task[bool]] = []

    async def finish_meanwhile(*args: Any) -> Any:
        ends.append(asyncio.create_task(recorder.finish(Outcome(held, "success", result="1"))))
        await asyncio.sleep(0.3)  # the finish reaches the database, where the sweeper has the row
        return await on_loss(*args)

    monkeypatch.setattr(sweeper, "_on_loss", finish_meanwhile)
    rescued = await rescue_worker(bench.database, recorder.worker_id, "killed")
    written = await ends[0]
    row = await bench.row(held.id)
    assert (rescued, written, row.status, row.epoch) == (1, False, "queued", held.epoch + 1)


async def test_a_sweep_passes_by_a_job_whose_end_is_being_written(bench: Bench) -> None:
    recorder = await bench.recorder()
    held = await bench.running(recorder)
    if bench.database.dialect == "sqlite":  # one writer at a time: the sweep waits until the end is there
        assert await recorder.finish(Outcome(held, "success"))
        assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 0
        return
    async with bench.database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == held.id).values(status="success"))
        assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 0
    assert (await bench.row(held.id)).status == "success"


async def test_a_long_job_with_a_living_worker_is_never_rescued_for_its_age(bench: Bench) -> None:
    recorder = await bench.recorder()
    held = await bench.running(recorder)
    observations = Observations(lease_s=15)
    for second in range(60):
        if second % 5 == 0:
            await presence.beat(bench.database, [presence.Beat(recorder.worker_id, second, [], 1, None)])
        assert await rescue_lost(bench.database, observations, float(second)) == 0
    row = await bench.row(held.id)
    assert (row.status, row.attempt, row.epoch) == ("running", 1, held.epoch)


async def test_a_doorbell_of_an_older_epoch_starts_nothing(bench: Bench) -> None:
    old, new = await bench.recorder(), await bench.recorder()
    first = await bench.running(old)
    await rescue_worker(bench.database, old.worker_id, "killed")
    second = await new.claim(first.id)
    assert second is not None
    third = await bench.recorder()
    assert await third.claim(first.id) is None
    assert await new.finish(Outcome(second, "success"))
    assert await third.claim(first.id) is None


@pytest.mark.timeout(600)
async def test_a_cancel_and_an_end_at_the_same_moment_make_one_end(bench: Bench) -> None:
    """Success wins if it commits first, and then the caller is told; never are there two ends, or two events."""
    recorder = await bench.recorder()
    for _ in range(RACES // AT_ONCE):
        bench.database.info["reception"].depths.clear()  # the depth that it remembers is a second old
        held = [await bench.running(recorder) for _ in range(AT_ONCE)]
        answers = await asyncio.gather(*(_race(bench, recorder, job, n) for n, job in enumerate(held)))
        for job, (answer, wanted) in zip(held, answers, strict=True):
            row = await bench.row(job.id)
            allowed = {wanted} if answer == "too late" or wanted == "success" else {"cancelled"}
            assert row.status in allowed, (answer, wanted, row.status, row.reason)
    ends = [event for event in await bench.events() if event in ENDINGS]
    assert len(ends) == RACES // AT_ONCE * AT_ONCE


ENDINGS = ("job.succeeded", "job.failed", "job.cancelled")


async def _race(bench: Bench, recorder: Recorder, job: Claimed, number: int) -> tuple[str, str]:
    wanted = ("success", "failed")[number % 2]
    orders = [_cancel(bench, job.id), recorder.finish(Outcome(job, wanted, error="x"))]  # type: ignore[arg-type]
    answers = await asyncio.gather(*(orders if number % 4 < 2 else reversed(orders)))
    return next(answer for answer in answers if isinstance(answer, str)), wanted


async def _cancel(bench: Bench, job_id: UUID) -> str:
    try:
        async with bench.database.transaction() as session:
            return await actions.cancel(session, job_id, actor=ADA)
    except TooLate:
        return "too late"
