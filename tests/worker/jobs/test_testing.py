"""`worker.testing` runs what was enqueued, as a worker would."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from worker import JobContext, broker, job, testing
from worker.db.base import utc_now
from worker.errors import Invalid, NotFound, UnknownJob

JOBS = """
import os
from taskiq import TaskiqDepends
from worker import JobContext, Secret, job

@job(isolation="process", retry=0)
def apart(ctx: JobContext, n: int, key: Secret[str]) -> dict:
    ctx.progress(0.5, "with " + key.reveal())
    ctx.log("line with " + key.reveal())
    ctx.checkpoint({"at": n})
    child = ctx.enqueue("child", {"n": n + 1}, key="once").result()
    return {"pid": os.getpid(), "n": n, "key": key.reveal(), "child": str(child)}

@job(isolation="process", retry=0)
async def apart_async(ctx: JobContext) -> str:
    task = await child.kiq(7)
    async with ctx.session() as session:
        return task.task_id

@job
def child(n: int) -> int:
    return n * 10

@job(isolation="process", retry=0, timeout=2)
def never_ends() -> None:
    import time
    time.sleep(600)

def table(ctx: JobContext = TaskiqDepends()) -> str:
    return "table of " + ctx.job_name

@job(isolation="process", retry=0)
def depends(n: int, on: str = TaskiqDepends(table)) -> str:
    return on * n

@job(isolation="process", retry=0)
def odd() -> object:
    return object()
"""


@job
async def parent(ctx: JobContext, depth: int) -> int:
    if depth:
        await parent.kiq(depth=depth - 1)
    return depth


@broker.task(name="adds")
async def adds(a: int, b: int = 1) -> int:
    return a + b


async def test_what_jobs_enqueue_is_run_too() -> None:
    async with testing.desk(parent) as desk:
        done = await desk.run(parent, depth=3)
        assert (done.status, done.result) == ("success", 3)
        assert [each.result for each in await desk.jobs("parent")] == [3, 2, 1, 0]


async def test_a_task_of_the_broker_gives_its_result() -> None:
    async with testing.desk(adds) as desk:
        task = await adds.kiq(1, b=2)
        await desk.run_until_idle()
        result = await task.wait_result(timeout=5)
        assert (result.is_err, result.return_value) == (False, 3)
        assert (await desk.job(task.task_id)).args == {"a": 1, "b": 2}
        assert await (await adds.kicker().kiq(4)).is_ready() is False
        await desk.run_until_idle()
        assert [each.result for each in await desk.jobs()] == [3, 5]


async def test_later_is_now_unless_asked_otherwise() -> None:
    async with testing.desk(adds) as desk:
        later = await adds.with_options(run_at=utc_now() + timedelta(days=1), queue="slow").kiq(1)
        await desk.run_until_idle(also_later=False)
        assert (await desk.job(later.task_id)).status == "scheduled"
        await desk.run_until_idle()
        assert (await desk.job(later.task_id)).status == "success"


async def test_wrong_arguments_and_names_are_refused_at_once() -> None:
    async with testing.desk(adds) as desk:
        with pytest.raises(Invalid, match="a: must be a whole number, not 'x'"):
            await desk.run("adds", a="x")
        with pytest.raises(UnknownJob, match="nobody"):
            await desk.run("nobody")
        with pytest.raises(NotFound):
            await desk.job("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
        assert await desk.jobs() == []


async def test_enqueueing_in_a_transaction_that_fails_enqueues_nothing() -> None:
    async with testing.desk(adds) as desk:
        async with desk.engine.database.session() as session:
            await adds.enqueue(session, 1)
            await session.rollback()
        async with desk.engine.database.transaction() as session:
            kept = await adds.enqueue(session, 1)
        await desk.run_until_idle()
        assert [each.id for each in await desk.jobs()] == [kept.id]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that the job's own process can import as this one does."""
    (tmp_path / "apart_jobs.py").write_text(JOBS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("apart_jobs", None)
    return "apart_jobs"


async def test_a_job_in_a_process_of_its_own_does_all_that_others_do(
    own_module: str, database_url: str
) -> None:
    async with testing.desk(own_module, environ={"DATABASE_URL": database_url}) as desk:
        done = await desk.run("apart", n=3, key="sesame street")
        assert done.status == "success", done.traceback
        assert done.result["key"] == "••••••"
        assert (done.progress, done.progress_note, done.checkpoint) == (0.5, "with ••••••", {"at": 3})
        assert await desk.lines(done.id) == ["line with ••••••"]
        child = await desk.job(done.result["child"])
        assert (child.status, child.result, child.caused_by) == ("success", 40, f"job:{done.id}")
        again = await desk.run("apart_async")
        assert again.status == "success", again.traceback
        assert (await desk.job(again.result)).result == 70


async def test_a_process_that_does_not_end_is_ended(own_module: str) -> None:
    async with testing.desk(own_module) as desk:
        done = await desk.run("never_ends")
        assert (done.status, done.reason) == ("failed", "timeout")
        depends = await desk.run("depends", n=1)
        assert depends.result == "table of depends", depends.traceback
        odd = await desk.run("odd")
        assert (odd.status, odd.reason) == ("failed", "result_unstorable")


async def test_an_adopted_taskiq_task_enqueues_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adopted_jobs.py").write_text(
        "from taskiq import InMemoryBroker\nmine = InMemoryBroker()\n"
        "@mine.task\nasync def doubled(a: int) -> int:\n    return 2 * a\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("adopted_jobs", None)
    async with testing.desk("adopted_jobs") as desk:
        task = await sys.modules["adopted_jobs"].doubled.kiq(21)
        await desk.run_until_idle()
        assert (await task.wait_result(timeout=5)).return_value == 42
        assert (await desk.job(task.task_id)).job_name == "adopted_jobs.doubled"
