"""For tests of one's own jobs: a real engine on a database of its own, without broker, workers or waiting.

from worker import testing

async def test_sends_a_mail() -> None:
    async with testing.desk(send_email) as desk:
        job = await desk.run(send_email, to="ada@example.org")
        assert (job.status, job.result) == ("success", {"sent": True})
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from worker.db.base import Base, new_id, utc_now
from worker.engine import Engine
from worker.errors import NotFound
from worker.events.job_starts import JobStarts
from worker.events.takers import hand_over
from worker.joblogs import capture
from worker.joblogs.claims import Claimed, Scope
from worker.joblogs.execute import execute
from worker.joblogs.hold import Hold
from worker.joblogs.models import JobLog, JobLogLine
from worker.joblogs.recorder import Recorder
from worker.joblogs.sweeper import promote_due
from worker.jobs.job import JobFunction
from worker.jobs.registry import Registry
from worker.queue.dependencies import call_with_dependencies
from worker.settings import Settings

CONCURRENCY = 10
MOST_ROUNDS = 10_000


class Desk:
    """An engine and a worker in one, run by hand. `.kiq()` and `.enqueue()` work as ever; `run_until_idle` executes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._worker_id = new_id()
        self._starts = JobStarts(engine.registry)
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="job")

    async def run(self, job: JobFunction[..., Any] | str, **args: Any) -> JobLog:
        """Enqueues a job, executes until nothing is left to do, and gives the job as it ended."""
        if isinstance(job, JobFunction):
            job_id = await self.engine.enqueue(
                job.name, job.definition.parameters.encode((), args), **job.options
            )
        else:
            job_id = await self.engine.enqueue(job, args)
        await self.run_until_idle()
        return await self.job(job_id)

    async def run_until_idle(self, *, also_later: bool = True) -> None:
        """Executes everything that waits, what that enqueues, and the jobs that wait for its events. With `also_later` (the default) nothing is waited
        for: retries and jobs with a `run_at` ahead are due at once.
        """
        for _ in range(MOST_ROUNDS):
            if also_later:
                await self._make_due()
            await hand_over(self.engine.database, [self._starts])
            await promote_due(self.engine.database)
            recorder = await self._recorder()
            claimed = await recorder.poll(CONCURRENCY)
            if not claimed:
                return
            await asyncio.gather(*(self._execute(recorder, job) for job in claimed))
            await recorder.close()
        raise RuntimeError(
            f"still not idle after {MOST_ROUNDS:,} rounds: do your jobs enqueue each other for ever?"
        )

    async def job(self, job_id: UUID | str) -> JobLog:
        """The job as it stands now."""
        async with self.engine.database.session() as session:
            found = await session.get(JobLog, UUID(str(job_id)))
        if found is None:
            raise NotFound(noun="job", key=str(job_id))
        return found

    async def jobs(self, job_name: str | None = None) -> list[JobLog]:
        """All jobs, oldest first; of one name if given."""
        wanted = sa.select(JobLog).order_by(JobLog.id)
        async with self.engine.database.session() as session:
            found = await session.scalars(
                wanted if job_name is None else wanted.where(JobLog.job_name == job_name)
            )
            return list(found)

    async def lines(self, job_id: UUID | str) -> list[str]:
        """What a job logged, over all its attempts."""
        wanted = (
            sa.select(JobLogLine.message)
            .where(JobLogLine.job_id == UUID(str(job_id)))
            .order_by(JobLogLine.epoch, JobLogLine.seq)
        )
        async with self.engine.database.session() as session:
            return list(await session.scalars(wanted))

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def _execute(self, recorder: Recorder, claimed: Claimed) -> None:
        hold = Hold(self.engine, claimed, recorder.notes, self._worker_id)
        call = functools.partial(call_with_dependencies, self.engine.broker, self._threads)
        await recorder.finish(await execute(hold, call))

    async def _recorder(self) -> Recorder:
        """A worker for every queue that something waits in."""
        async with self.engine.database.session() as session:
            queues = await session.scalars(sa.select(JobLog.queue).distinct().order_by(JobLog.queue))
            scope = Scope(tuple(self.engine.registry.names()), tuple(queues))
        return Recorder(self.engine.database, self._worker_id, scope)

    async def _make_due(self) -> None:
        async with self.engine.database.transaction() as session:
            await session.execute(
                sa.update(JobLog)
                .where(JobLog.status.in_(("scheduled", "retrying")), JobLog.run_at > utc_now())
                .values(run_at=utc_now())
                .execution_options(synchronize_session=False)
            )


@asynccontextmanager
async def desk(
    *jobs: JobFunction[..., Any] | str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Desk]:
    """A desk for these jobs, or for the jobs of the modules named; on SQLite in a folder that vanishes afterwards.

    `environ` sets what the environment would, `M_JOB_MAX_RETRIES` say, or a migrated `DATABASE_URL`.
    """
    capture.install()
    with tempfile.TemporaryDirectory(prefix="m-desk-") as home:
        settings = Settings.from_env({"M_HOME": str(Path(home)), **(environ or {})})
        registry = Registry(job for job in jobs if isinstance(job, JobFunction))
        registry.discover(name for name in jobs if isinstance(name, str))
        engine = Engine.create(settings, registry=registry)
        if "DATABASE_URL" not in (environ or {}):
            async with engine.database.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
        async with engine:
            desk = Desk(engine)
            try:
                yield desk
            finally:
                desk.close()
