"""What a job says of itself is written once, by the execution that said it, and holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from tests.worker.joblogs.conftest import Bench
from worker.db import half_open
from worker.joblogs.finishes import Outcome
from worker.joblogs.models import JobLog, JobLogLine
from worker.joblogs.sweeper import rescue_worker

WITHIN_S = 30


async def messages(bench: Bench, job_id: UUID) -> list[str]:
    statement = sa.select(JobLogLine.message).where(JobLogLine.job_id == job_id)
    async with bench.database.read() as connection:
        found = await connection.scalars(statement.order_by(JobLogLine.epoch, JobLogLine.seq))
        return list(found)


async def until(seen: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await seen():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_note_that_is_not_answered_holds_up_no_other_jobs_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here its row is locked; where a host vanished, nothing would ever come."""
    monkeypatch.setattr(half_open, "UNANSWERED_MS", 1000)
    recorder = await bench.recorder()
    stuck, ends = await bench.running(recorder), await bench.running(recorder)

    async def waits() -> bool:
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with bench.database.read() as connection:
            return (await connection.execute(sa.text(waiting))).first() is not None

    async with bench.database.transaction() as session:
        await session.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await session.execute(sa.select(JobLog.id).where(JobLog.id == stuck.id).with_for_update())
        recorder.notes.progress(stuck, 0.5, None)
        await until(waits)
        recorder.notes.progress(ends, 0.5, None)
        async with asyncio.timeout(WITHIN_S):
            assert await recorder.finish(Outcome(ends, "success"))
    await recorder.close()
    assert (await bench.row(stuck.id)).progress == 0.5


async def test_lines_whose_answer_was_lost_are_there_once_and_keep_nobodys_lines_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    one, two = await bench.running(recorder), await bench.running(recorder)
    transaction, lost = bench.database.transaction, [True]

    @asynccontextmanager
    async def unanswered() -> AsyncIterator[AsyncSession]:
        async with transaction() as session:
            yield session
        if lost:
            lost.clear()
            raise TimeoutError

    monkeypatch.setattr(bench.database, "transaction", unanswered)
    recorder.notes.line(one, "info", "first")
    await until(lambda: messages(bench, one.id))
    recorder.notes.line(one, "info", "second")
    recorder.notes.line(two, "info", "other")
    await until(lambda: messages(bench, two.id))
    assert (await messages(bench, one.id), lost) == (["first", "second"], [])
    await recorder.close()


async def test_notes_of_an_execution_that_was_taken_over_are_dropped(bench: Bench) -> None:
    old, new = await bench.recorder(), await bench.recorder()
    before = await bench.running(old)
    await rescue_worker(bench.database, old.worker_id, "frozen")
    now = await new.claim(before.id)
    assert now is not None
    new.notes.line(now, "info", "mine")
    old.notes.line(before, "info", "late")
    old.notes.progress(before, 0.9, "late")
    await old.notes.settle(before)
    await new.notes.settle(now)
    assert (await messages(bench, now.id), (await bench.row(now.id)).progress) == (["mine"], None)


async def test_notes_of_a_worker_that_does_not_hold_the_job_are_dropped_at_the_same_epoch_too(
    bench: Bench,
) -> None:
    mine, other = await bench.recorder(), await bench.recorder()
    claimed = await bench.running(mine)
    other.notes.line(claimed, "info", "not mine")
    other.notes.progress(claimed, 0.9, "not mine")
    await other.notes.settle(claimed)
    assert (await messages(bench, claimed.id), (await bench.row(claimed.id)).progress) == ([], None)


async def test_the_last_lines_of_an_execution_are_kept_though_its_end_was_written_first(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "success"))
    recorder.notes.line(claimed, "info", "the end")
    await recorder.notes.close()
    assert await messages(bench, claimed.id) == ["the end"]


async def test_lines_that_are_being_written_are_there_before_the_release_that_would_drop_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    entered, gate = gated(bench, monkeypatch)
    recorder.notes.line(claimed, "info", "still said")
    await entered.wait()
    release = asyncio.create_task(recorder.finish(Outcome(claimed, "queued", reason="released")))
    await asyncio.wait([release], timeout=0.3)  # time to do it wrong
    gate.set()
    assert await release
    assert await messages(bench, claimed.id) == ["still said"]
    await recorder.close()


async def test_notes_that_are_being_written_when_their_worker_leaves_are_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    entered, _ = gated(bench, monkeypatch)
    recorder.notes.line(claimed, "info", "still said")
    recorder.notes.progress(claimed, 0.5, None)
    await entered.wait()
    await recorder.close()
    assert (await messages(bench, claimed.id), (await bench.row(claimed.id)).progress) == (
        ["still said"],
        0.5,
    )


def gated(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """The next transaction tells by the first event that it wants to begin, and waits for the second."""
    transaction, entered, gate = bench.database.transaction, asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def slow() -> AsyncIterator[AsyncSession]:
        if not entered.is_set():
            entered.set()
            await gate.wait()
        async with transaction() as session:
            yield session

    monkeypatch.setattr(bench.database, "transaction", slow)
    return entered, gate


async def test_lines_of_a_job_that_is_gone_keep_nobody_elses_out(bench: Bench) -> None:
    recorder = await bench.recorder()
    gone, kept = await bench.running(recorder), await bench.running(recorder)
    async with bench.database.transaction() as session:
        await session.execute(sa.delete(JobLog).where(JobLog.id == gone.id))
    recorder.notes.line(gone, "info", "of nobody")
    recorder.notes.line(kept, "info", "of somebody")
    await recorder.notes.close()
    assert await messages(bench, kept.id) == ["of somebody"]
