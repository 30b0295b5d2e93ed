"""Taskiq's face: tasks become jobs, kicks become rows, results are read from rows, labels stay labels."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from taskiq import SendTaskError
from taskiq.kicker import AsyncKicker

from worker.engine import Engine
from worker.errors import UnknownJob
from worker.joblogs.models import JobLog
from worker.queue.port import JobQueueProtocol
from worker.settings import Settings


@pytest.fixture
async def engine(sqlite_url: str, tmp_path):
    async with Engine.create(
        Settings.from_env({"DATABASE_URL": sqlite_url, "M_HOME": str(tmp_path)})
    ) as engine:
        yield engine


async def rows(engine: Engine):
    async with engine.database.session() as session:
        return list(await session.scalars(sa.select(JobLog).order_by(JobLog.id)))


async def test_broker_task_makes_a_job(engine: Engine):
    @engine.broker.task(name="greet", retry=1, queue="mail", timeout=5)
    async def greet(name: str) -> str:
        return name

    job = engine.registry.get("greet")
    assert (job.queue, job.max_retries, job.timeout_s, await greet("Ada")) == ("mail", 1, 5.0, "Ada")


async def test_a_foreign_kicker_writes_a_row_with_its_task_id(engine: Engine):
    @engine.broker.task(name="greet")
    async def greet(name: str, times: int = 1) -> str:
        return name * times

    labels = {"queue": "mail", "priority": 2, "Nats-TTL": "1s", "Nats-Rollup": "all"}
    task = await AsyncKicker("greet", engine.broker, labels).kiq("Ada", times=2)
    (row,) = await rows(engine)
    assert (str(row.id), row.args, row.queue, row.priority) == (
        task.task_id,
        {"name": "Ada", "times": 2},
        "mail",
        2,
    )


async def test_a_kick_of_an_unknown_task_writes_nothing(engine: Engine):
    with pytest.raises(SendTaskError) as caught:
        await AsyncKicker("nobody", engine.broker, {}).kiq()
    assert isinstance(caught.value.__cause__, UnknownJob)
    assert await rows(engine) == []


async def test_a_result_is_ready_when_the_row_has_ended(engine: Engine):
    @engine.broker.task(name="greet")
    async def greet() -> str:
        return "hi"

    task = await greet.kiq()
    assert await task.is_ready() is False
    async with engine.database.transaction() as session:
        await session.execute(sa.update(JobLog).values(status="running", worker_id=None))
    async with engine.database.transaction() as session:
        await session.execute(sa.update(JobLog).values(status="failed", error="no luck"))
    result = await task.wait_result(timeout=5)
    assert (result.is_err, "no luck" in str(result.error)) == (True, True)


async def test_the_job_queue_protocol_answers_the_job_id(engine: Engine):
    @engine.broker.task(name="greet")
    async def greet(name: str) -> str:
        return name

    queue: JobQueueProtocol = engine.queue
    job_id = await queue.enqueue("greet", name="Ada")
    assert [str(row.id) for row in await rows(engine)] == [job_id]


async def test_a_jobs_dependencies_never_land_in_the_shared_context(engine: Engine):
    engine.broker.add_dependency_context({str: "shared"})
    one = engine.broker.custom_dependency_context
    one[int] = "one job's own"
    assert engine.broker.custom_dependency_context == {str: "shared"}
