"""Counts per job, queue and status: deltas are inserted with the transitions and folded in by the clerk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.base import new_id
from worker.db.session import Database
from worker.joblogs.models import JobCounter, JobCounterDelta, JobLog

Key = tuple[str, str, str]
"""Job name, queue, status."""

WAITING = ("scheduled", "queued", "retrying")


def count(session: AsyncSession, deltas: Mapping[Key, int]) -> None:
    """Adds these changes to the session's transaction."""
    session.add_all(
        JobCounterDelta(id=new_id(), job_name=name, queue=queue, status=status, delta=delta)
        for (name, queue, status), delta in deltas.items()
        if delta
    )


def moved(counts: Counter[Key], job: Any, before: str, after: str) -> None:
    """Notes one transition in `counts`."""
    counts[(job.job_name, job.queue, before)] -= 1
    counts[(job.job_name, job.queue, after)] += 1


async def waiting(session: AsyncSession, queue: str) -> int:
    """How many jobs of a queue have not started."""
    total = 0
    for table, column in ((JobCounter, JobCounter.n), (JobCounterDelta, JobCounterDelta.delta)):
        statement = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(
            table.queue == queue, table.status.in_(WAITING)
        )
        total += int(await session.scalar(statement) or 0)
    return total


async def by_status(connection: AsyncConnection | AsyncSession) -> dict[str, int]:
    """How many jobs stand in each status; statuses with none are absent."""
    every = _all_counts()
    statement = sa.select(every.c.status, sa.func.sum(every.c.n)).group_by(every.c.status)
    return {status: int(n) for status, n in await connection.execute(statement) if n}


async def by_queue(connection: AsyncConnection | AsyncSession) -> dict[tuple[str, str], int]:
    """How many jobs stand in each (queue, status)."""
    every = _all_counts()
    statement = sa.select(every.c.queue, every.c.status, sa.func.sum(every.c.n)).group_by(
        every.c.queue, every.c.status
    )
    return {(queue, status): int(n) for queue, status, n in await connection.execute(statement) if n}


async def fold(database: Database, limit: int = 5000) -> int:
    """Folds the oldest deltas into the counters; answers how many. Clerks that meet take different rows."""
    if not await database.any(JobCounterDelta):
        return 0
    async with database.transaction() as session:
        ids = (
            await session.scalars(
                sa.select(JobCounterDelta.id)
                .order_by(JobCounterDelta.id)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
        ).all()
        if not ids:
            return 0
        taken = await session.execute(
            sa.delete(JobCounterDelta)
            .where(JobCounterDelta.id.in_(ids))
            .returning(
                JobCounterDelta.job_name, JobCounterDelta.queue, JobCounterDelta.status, JobCounterDelta.delta
            )
            .execution_options(synchronize_session=False)
        )
        sums: Counter[Key] = Counter()
        for name, queue, status, delta in taken:
            sums[(name, queue, status)] += delta
        await _add(session, sums)
        return len(ids)


async def recount(database: Database) -> int:
    """Sets the counters to what the job logs say; the nightly correction. Answers 0: there is never more to do."""
    async with database.transaction() as session:
        if database.dialect == "postgresql":
            await session.execute(
                sa.text("LOCK TABLE job_logs, job_counters, job_counter_deltas IN SHARE ROW EXCLUSIVE MODE")
            )
        await session.execute(sa.delete(JobCounterDelta))
        await session.execute(sa.delete(JobCounter))
        truth = (
            sa.select(JobLog.job_name, JobLog.queue, JobLog.status, sa.func.count())
            .where(JobLog.deleted_at.is_(None))
            .group_by(JobLog.job_name, JobLog.queue, JobLog.status)
        )
        await session.execute(sa.insert(JobCounter).from_select(["job_name", "queue", "status", "n"], truth))
    return 0


async def _add(session: AsyncSession, sums: Mapping[Key, int]) -> None:
    """Adds to the counters in the order of their keys, so that two clerks never wait for each other in a ring."""
    rows = [{"job_name": k[0], "queue": k[1], "status": k[2], "n": n} for k, n in sorted(sums.items()) if n]
    if not rows:
        return
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(JobCounter)
    statement = statement.on_conflict_do_update(
        index_elements=["job_name", "queue", "status"], set_={"n": JobCounter.n + statement.excluded.n}
    )
    await session.execute(statement, rows)


def _all_counts() -> sa.Subquery:
    return sa.union_all(
        sa.select(JobCounter.job_name, JobCounter.queue, JobCounter.status, JobCounter.n),
        sa.select(
            JobCounterDelta.job_name,
            JobCounterDelta.queue,
            JobCounterDelta.status,
            JobCounterDelta.delta.label("n"),
        ),
    ).subquery()
