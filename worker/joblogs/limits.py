"""Concurrency limits over all workers: only jobs and queues that have one pay for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.session import Doorbell, ring
from worker.joblogs.models import JobLog
from worker.jobs.models import JobCatalogue, Queue

Candidate = tuple[UUID, str, str]
"""Job id, job name, queue."""


async def within_limits(session: AsyncSession, candidates: Sequence[Candidate]) -> list[UUID]:
    """Those of `candidates`, in their order, that may start now without exceeding a limit.

    The control rows of limited names are locked in name order until the claim commits, and the running jobs are
    counted in a statement of their own after the lock: two workers never both take the last place.
    """
    if not candidates:
        return []
    jobs = await _room(session, JobCatalogue, JobLog.job_name, {name for _, name, _ in candidates})
    queues = await _room(session, Queue, JobLog.queue, {queue for _, _, queue in candidates})
    if not jobs and not queues:
        return [job_id for job_id, _, _ in candidates]
    return admit(candidates, jobs, queues)


def admit(candidates: Sequence[Candidate], jobs: dict[str, int], queues: dict[str, int]) -> list[UUID]:
    """The pure choice: first come, first served, while both the job's and the queue's room last."""
    taken_jobs: Counter[str] = Counter()
    taken_queues: Counter[str] = Counter()
    admitted = []
    for job_id, name, queue in candidates:
        if name in jobs and taken_jobs[name] >= jobs[name]:
            continue
        if queue in queues and taken_queues[queue] >= queues[queue]:
            continue
        taken_jobs[name] += 1
        taken_queues[queue] += 1
        admitted.append(job_id)
    return admitted


async def ring_limited(session: AsyncSession, ended: Sequence[Candidate]) -> None:
    """A place of a limited job or queue became free: rings for as many of those that wait for it.

    Their own doorbells were answered when the limit held them back, so without this they would wait for a poll.
    """
    for table, column, names in (
        (JobCatalogue, JobLog.job_name, Counter(name for _, name, _ in ended)),
        (Queue, JobLog.queue, Counter(queue for _, _, queue in ended)),
    ):
        limited = sa.select(table.name).where(table.name.in_(names), table.concurrency.is_not(None))
        for name in await session.scalars(limited):
            waiting = (
                sa.select(JobLog.id, JobLog.queue, JobLog.priority)
                .where(column == name, JobLog.status == "queued")
                .order_by(JobLog.priority, JobLog.run_at)
                .limit(names[name])
            )
            ring(session, [Doorbell(row[0], row[1], row[2]) for row in await session.execute(waiting)])


async def _room(
    session: AsyncSession,
    table: type[JobCatalogue | Queue],
    column: sa.orm.InstrumentedAttribute[str],
    names: set[str],
) -> dict[str, int]:
    """How many more may start, by limited name."""
    limited = await session.execute(
        sa.select(table.name, table.concurrency)
        .where(table.name.in_(names), table.concurrency.is_not(None))
        .order_by(table.name)
        .with_for_update()
    )
    limits = {name: int(limit) for name, limit in limited if limit is not None}
    if not limits:
        return {}
    running = await session.execute(
        sa.select(column, sa.func.count())
        .where(JobLog.status == "running", column.in_(limits))
        .group_by(column)
    )
    busy = {name: int(n) for name, n in running}
    return {name: max(0, limit - busy.get(name, 0)) for name, limit in limits.items()}
