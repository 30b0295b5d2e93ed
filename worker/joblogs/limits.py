"""Limits over all workers, concurrency and rate: only jobs and queues that have one pay for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.session import Database, Doorbell, ring
from worker.joblogs.models import JobLog
from worker.jobs.models import JobCatalogue, Queue
from worker.jobs.rate import Rate

Candidate = tuple[UUID, str, str]
"""Job id, job name, queue."""
SEEKS_AT_ONCE = 200
QUEUED = JobLog.status == sa.literal_column("'queued'")
"""As the index of the waiting has it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Which candidates may start, and what holds the others back."""

    ids: list[UUID]
    full_jobs: frozenset[str] = frozenset()
    """Jobs of which nothing more can start now."""
    full_queues: frozenset[str] = frozenset()
    again_s: Mapping[str, float] = field(default_factory=dict)
    """Rate-limited jobs that were let in: in how many seconds the next one may follow."""
    at: datetime | None = None
    """The instant by which limits were judged, after the wait for their locks."""


async def within_limits(
    session: AsyncSession, database: Database, candidates: Sequence[Candidate]
) -> Admission:
    """Those of `candidates`, in their order, that may start now without exceeding a limit.

    The control rows of limited names are locked in name order, jobs before queues, until the claim commits, and the
    running jobs are counted in a statement of their own after the lock: two workers never both take the last place.
    """
    limited = await _limited(
        session, {name for _, name, _ in candidates}, {queue for _, _, queue in candidates}
    )
    if not limited:
        return Admission([job_id for job_id, _, _ in candidates])
    jobs = await _room(session, JobCatalogue, {name for kind, name in limited if kind == "job"})
    queues = await _room(session, Queue, {name for kind, name in limited if kind == "queue"})
    rates = await _rates(session, {name for kind, name in limited if kind == "job"})
    now = await database.now(session)
    for name, (rate, tat) in rates.items():
        room = rate.take(tat, now, len(candidates)).granted
        jobs[name] = min(room, jobs.get(name, room))
    admitted, full_jobs, full_queues = admit(candidates, jobs, queues)
    let_in = set(admitted)
    started = Counter(name for job_id, name, _ in candidates if job_id in let_in)
    again_s = {
        name: await _spend(session, name, *rates[name], now, started[name]) for name in rates if started[name]
    }
    return Admission(admitted, full_jobs, full_queues, again_s, now)


def admit(
    candidates: Sequence[Candidate], jobs: Mapping[str, int], queues: Mapping[str, int]
) -> tuple[list[UUID], frozenset[str], frozenset[str]]:
    """The pure choice: first come, first served, while both the job's and the queue's room last; and whose room ended."""
    taken_jobs: Counter[str] = Counter()
    taken_queues: Counter[str] = Counter()
    admitted = []
    for job_id, name, queue in candidates:
        if taken_jobs[name] >= jobs.get(name, len(candidates)):
            continue
        if taken_queues[queue] >= queues.get(queue, len(candidates)):
            continue
        taken_jobs[name] += 1
        taken_queues[queue] += 1
        admitted.append(job_id)
    return admitted, _full(jobs, taken_jobs), _full(queues, taken_queues)


async def ring_limited(session: AsyncSession, ended: Sequence[Candidate]) -> None:
    """A place of a limited job or queue became free: rings for as many of those that wait for it.

    Their own doorbells were answered when the limit held them back, so without this they would wait for a poll.
    """
    jobs = Counter((name, queue) for _, name, queue in ended)
    queues = Counter(queue for _, _, queue in ended)
    limited = await _limited(session, {name for name, _ in jobs}, set(queues))
    for kind, name in sorted(limited):
        if kind == "queue":
            await ring_waiting(session, queues[name], JobLog.queue == name)
            continue
        for (job, queue), freed in jobs.items():
            if job == name:
                await ring_waiting(session, freed, JobLog.queue == queue, JobLog.job_name == name)


async def ring_next(database: Database, name: str) -> float:
    """Rings for as many of a rate-limited job as may start now; answers how many seconds are left until one may."""
    async with database.transaction() as session:
        rates = await _rates(session, {name})
        if name not in rates:
            return 0.0
        rate, tat = rates[name]
        now = await database.now(session)
        await ring_waiting(session, rate.take(tat, now, rate.burst).granted, JobLog.job_name == name)
        return float((rate.ready_at(tat, now) - now).total_seconds())


async def ring_waiting(session: AsyncSession, most: int, *which: sa.ColumnElement[bool]) -> None:
    """Rings for the first that wait, but not for what a pause holds back."""
    if most < 1:
        return
    waiting = (
        sa.select(JobLog.id, JobLog.queue, JobLog.priority)
        .where(QUEUED, *which, *unpaused())
        .order_by(JobLog.priority, JobLog.run_at)
        .limit(most)
    )
    ring(session, [Doorbell(row[0], row[1], row[2]) for row in await session.execute(waiting)])


def unpaused() -> tuple[sa.ColumnElement[bool], ...]:
    """Neither the job nor its queue is paused."""
    return (
        JobLog.queue.not_in(sa.select(Queue.name).where(Queue.paused_at.is_not(None))),
        JobLog.job_name.not_in(sa.select(JobCatalogue.name).where(JobCatalogue.paused_at.is_not(None))),
    )


async def full_jobs(session: AsyncSession, database: Database) -> set[str]:
    """Every job of which nothing can start now, because of its own limits; as they stand, without a lock."""
    rates = await _rates(session)
    limited = sa.select(JobCatalogue.name, JobCatalogue.concurrency).where(
        JobCatalogue.concurrency.is_not(None)
    )
    limits = {name: int(limit) for name, limit in await session.execute(limited) if limit is not None}
    busy = await _running(session, JobLog.job_name, limits)
    now = await database.now(session)
    slow = {name for name, (rate, tat) in rates.items() if rate.ready_at(tat, now) > now}
    return slow | {name for name, limit in limits.items() if busy.get(name, 0) >= limit}


async def waiting_names(session: AsyncSession, names: Collection[str]) -> tuple[str, ...]:
    """Those of `names` of which a job waits in any queue: a seek each, however many wait."""
    found: list[str] = []
    wanted = sorted(names)
    for start in range(0, len(wanted), SEEKS_AT_ONCE):
        each = [sa.select(sa.literal(name).label("name")) for name in wanted[start : start + SEEKS_AT_ONCE]]
        name = sa.union_all(*each).subquery().c.name
        found += await session.scalars(
            sa.select(name).where(sa.exists().where(JobLog.job_name == name, QUEUED))
        )
    return tuple(found)


async def _limited(
    session: AsyncSession, jobs: Collection[str], queues: Collection[str]
) -> list[tuple[str, str]]:
    """Which of these have a limit at all: one short statement is what everybody pays."""
    if not jobs and not queues:
        return []
    has_limit = sa.or_(JobCatalogue.concurrency.is_not(None), JobCatalogue.rate_limit.is_not(None))
    statement = sa.union_all(
        sa.select(sa.literal("job"), JobCatalogue.name).where(JobCatalogue.name.in_(jobs), has_limit),
        sa.select(sa.literal("queue"), Queue.name).where(
            Queue.name.in_(queues), Queue.concurrency.is_not(None)
        ),
    )
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def _room(
    session: AsyncSession, table: type[JobCatalogue | Queue], names: Collection[str]
) -> dict[str, int]:
    """How many more may start, by name; locks the control rows. Names without a limit of this kind are absent."""
    if not names:
        return {}
    locked = await session.execute(
        sa.select(table.name, table.concurrency)
        .where(table.name.in_(names))
        .order_by(table.name)
        .with_for_update()
    )
    limits = {name: int(limit) for name, limit in locked if limit is not None}
    column = JobLog.job_name if table is JobCatalogue else JobLog.queue
    busy = await _running(session, column, limits)
    return {name: max(0, limit - busy.get(name, 0)) for name, limit in limits.items()}


async def _running(
    session: AsyncSession, column: sa.orm.InstrumentedAttribute[str], names: Collection[str]
) -> dict[str, int]:
    if not names:
        return {}
    running = await session.execute(
        sa.select(column, sa.func.count())
        .where(JobLog.status == "running", column.in_(names))
        .group_by(column)
    )
    return {name: int(n) for name, n in running}


async def _rates(
    session: AsyncSession, names: Collection[str] | None = None
) -> dict[str, tuple[Rate, datetime | None]]:
    """The rates of these jobs (default: all) and where they stand."""
    statement = sa.select(
        JobCatalogue.name, JobCatalogue.rate_limit, JobCatalogue.rate_burst, JobCatalogue.rate_tat
    ).where(JobCatalogue.rate_limit.is_not(None))
    if names is not None:
        statement = statement.where(JobCatalogue.name.in_(names))
    return {
        row.name: (Rate.of(row.rate_limit, row.rate_burst), row.rate_tat)
        for row in await session.execute(statement)
    }


async def _spend(
    session: AsyncSession, name: str, rate: Rate, tat: datetime | None, now: datetime, started: int
) -> float:
    """Writes that so many have started; answers in how many seconds the next one may."""
    after = rate.take(tat, now, started).tat
    await session.execute(
        sa.update(JobCatalogue)
        .where(JobCatalogue.name == name)
        .values(rate_tat=after)
        .execution_options(synchronize_session=False)
    )
    return (rate.ready_at(after, now) - now).total_seconds()


def _full(room: Mapping[str, int], taken: Mapping[str, int]) -> frozenset[str]:
    return frozenset(name for name, most in room.items() if taken.get(name, 0) >= most)
