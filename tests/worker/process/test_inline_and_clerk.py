"""Jobs inside a web process, the clerk's loops, and how a dead process is told from a living one."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import sqlalchemy as sa

from tests.worker.process import sample_jobs
from worker.db.base import new_id
from worker.engine import Engine
from worker.joblogs.claims import Scope, claim_ids
from worker.joblogs.finishes import Outcome
from worker.joblogs.journal import Journal
from worker.joblogs.models import JobLog
from worker.jobs.registry import Registry
from worker.process import presence
from worker.process.clerk import BURIAL_S, LONGEST_PAUSE_S, ORPHAN_BURIAL_S, GoneProcesses, Loop
from worker.process.identity import boot_id, identify, is_gone, memory_mb
from worker.process.inline import InlineWorker
from worker.process.models import Worker
from worker.settings import Settings

WITHIN_S = 30
needs_proc = pytest.mark.skipif(not boot_id(), reason="only on Linux: /proc tells which process is which")


@pytest.fixture
async def engine(database_url: str, tmp_path):
    environ = {"DATABASE_URL": database_url, "M_HOME": str(tmp_path)}
    registry = Registry([sample_jobs.add, sample_jobs.mark])
    async with Engine.create(Settings.from_env(environ), registry=registry) as engine:
        yield engine


async def status(engine: Engine, job_id, *wanted: str) -> str:
    async with asyncio.timeout(WITHIN_S):
        while True:
            async with engine.database.read() as connection:
                found = await connection.scalar(sa.select(JobLog.status).where(JobLog.id == job_id))
            if found in wanted:
                return found
            await asyncio.sleep(0.02)


async def live_workers(engine: Engine) -> list[Worker]:
    async with engine.database.session() as session:
        return list(await session.scalars(sa.select(Worker).where(Worker.ended_at.is_(None))))


async def test_an_inline_worker_runs_jobs_and_the_clerks_loops(engine: Engine):
    inline = InlineWorker()
    await inline.start(engine)
    (row,) = await live_workers(engine)
    assert (row.kind, row.jobs) == ("inline", ["add", "mark"])
    now = await engine.enqueue("add", {"a": 1})
    async with engine.database.session() as session:
        soon = await engine.database.now(session)
    later = await engine.enqueue("add", {"a": 1}, run_at=soon)
    assert await status(engine, now, "success")
    assert await status(engine, later, "success")
    await inline.stop()
    assert await live_workers(engine) == []


async def test_an_inline_worker_that_was_declared_dead_begins_anew(engine: Engine):
    inline = InlineWorker()
    await inline.start(engine)
    (before,) = await live_workers(engine)
    async with engine.database.transaction() as session:
        await session.execute(
            sa.update(Worker)
            .where(Worker.id == before.id)
            .values(ended_at=await engine.database.now(session))
        )
    async with asyncio.timeout(WITHIN_S):
        while not (after := await live_workers(engine)):
            await asyncio.sleep(0.1)
    assert after[0].id != before.id
    assert await status(engine, await engine.enqueue("add", {"a": 1}), "success")
    await inline.stop()


@needs_proc
@pytest.mark.parametrize(
    ("sibling_lives", "asked_to_stop", "after_s"),
    [(True, False, BURIAL_S), (False, False, ORPHAN_BURIAL_S), (False, True, BURIAL_S)],
    ids=["its supervisor may live", "all of its supervisor are gone", "it was asked to stop"],
)
async def test_the_jobs_of_a_process_that_is_gone_from_this_host_are_taken_back(
    engine: Engine, sibling_lives: bool, asked_to_stop: bool, after_s: float
):
    dead, living, supervisor = new_id(), new_id(), new_id()
    await engine.catalogue.advertise(engine.registry, dead)
    await presence.enter(engine.database, dead, "worker", supervisor_id=supervisor, registry=engine.registry)
    await presence.enter(
        engine.database,
        living,
        "worker",
        supervisor_id=supervisor if sibling_lives else new_id(),
        registry=engine.registry,
    )
    if asked_to_stop:
        await presence.stopping(engine.database, dead)
    job_id = await engine.enqueue("add", {"a": 1})
    await claim_ids(engine.database, dead, Scope(("add",), ("default",)), [job_id])
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    it = identify(process.pid)
    async with engine.database.transaction() as session:
        await session.execute(
            sa.update(Worker).where(Worker.id == dead).values(pid=it.pid, process_started=it.process_started)
        )
    ended_id = await engine.enqueue("add", {"a": 2})
    ended = (await claim_ids(engine.database, dead, Scope(("add",), ("default",)), [ended_id]))[0]
    Journal(engine.settings.home, dead).note(Outcome(ended, "success", result="3"))
    gone = GoneProcesses(engine.database, engine.settings.home)
    await gone.look(0.0)
    process.kill()
    process.communicate()
    await gone.look(10.0)
    await gone.look(10.0 + after_s - 0.1)
    assert await status(engine, job_id, "running", "queued") == "running"
    await gone.look(10.0 + after_s)
    assert await status(engine, job_id, "running", "queued") == "queued"
    assert await status(engine, ended_id, "success") == "success", "it had ended"
    assert [row.id for row in await live_workers(engine)] == [living]


@needs_proc
def test_another_process_with_the_same_pid_is_another_process():
    me = identify()
    assert not is_gone(me.pid, me.boot_id, me.process_started)
    assert is_gone(me.pid, me.boot_id, "1")
    assert not is_gone(me.pid, "another boot", "1")
    assert (memory_mb(me.pid) or 0) > 10


async def test_a_loop_survives_its_errors_and_waits_longer_after_each():
    calls = 0

    async def fails() -> int:
        nonlocal calls
        calls += 1
        raise RuntimeError("the database is away")

    loop = Loop("test", 0.01, fails)
    assert [loop.pause_s(0, trouble) for trouble in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert loop.pause_s(0, 50) == LONGEST_PAUSE_S
    task = asyncio.create_task(loop.run())
    async with asyncio.timeout(WITHIN_S):
        while calls < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_loop_looks_soon_again_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []

    async def away() -> int:
        raise ConnectionRefusedError

    async def pause(_loop: Loop, pause_s: float) -> None:
        pauses.append(pause_s)
        await asyncio.sleep(0)

    monkeypatch.setattr(Loop, "_pause", pause)
    task = asyncio.create_task(Loop("test", 1.0, away).run())
    while len(pauses) < 8:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pauses[:3] == [1.0, 2.0, 2.0]
    assert max(pauses) == 2.0


async def test_a_loop_whose_action_hangs_gives_it_up_and_goes_on() -> None:
    calls = 0

    async def hang_once() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return 0

    task = asyncio.create_task(Loop("test", 0.01, hang_once, patience_s=0.05).run())
    async with asyncio.timeout(30):
        while calls < 3:
            await asyncio.sleep(0.01)
    task.cancel()


def test_a_loop_with_more_to_do_looks_again_at_once():
    async def nothing() -> int:
        return 0

    loop = Loop("test", 5.0, nothing, full=100)
    assert (loop.pause_s(99, 0), loop.pause_s(100, 0)) == (5.0, 0.0)
