"""Claiming: one statement turns queued rows into rows that this worker holds, fenced by a new epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from worker.db.session import Database, changed, emit
from worker.joblogs.counters import Key, count, moved
from worker.joblogs.enqueue import event_data
from worker.joblogs.limits import QUEUED, Admission, full_jobs, unpaused, waiting_names, within_limits
from worker.joblogs.models import JobLog
from worker.process.models import Worker


@dataclass(slots=True)
class Claimed:
    """A job that this worker holds: every write about it names its epoch."""

    id: UUID
    job_name: str
    queue: str
    priority: int
    args: dict[str, Any]
    attempt: int
    max_retries: int
    timeout_s: float
    epoch: int
    rev: int
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime
    user_id: str | None
    lost_count: int
    died_alone: int
    lane: str
    unique_key: str | None
    checkpoint: Any
    correlation_id: str | None
    caused_by: str | None
    scheduled_job_id: UUID | None
    cancel_requested_at: datetime | None
    status: str = "running"
    reason: str | None = None


FIELDS = (
    "id", "job_name", "queue", "priority", "args", "attempt", "max_retries", "timeout_s", "epoch", "rev",
    "enqueued_at", "run_at", "started_at", "user_id", "lost_count", "died_alone", "lane", "unique_key", "checkpoint",
    "correlation_id", "caused_by", "scheduled_job_id", "cancel_requested_at",
)  # fmt: skip
COLUMNS = [getattr(JobLog, name) for name in FIELDS]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a worker may take: the jobs it knows and, per queue, the priorities it serves."""

    names: tuple[str, ...]
    queues: tuple[str, ...]
    low: int = 0
    high: int = 9


Again = Callable[[str, float], None]
"""Told after a commit that a rate-limited job has started, and in how many seconds the next one of it may."""


def _nobody(_name: str, _seconds: float) -> None:
    pass


async def claim_ids(
    database: Database, worker_id: UUID, scope: Scope, ids: Sequence[UUID], again: Again = _nobody
) -> list[Claimed]:
    """Claims those of `ids` that are queued, due, known, in scope and not held back by a pause or a limit."""
    async with database.transaction() as session:
        now = await database.now(session)
        found = await _lock(session, scope, now, len(ids), JobLog.id.in_(ids), first=(JobLog.id,))
        claimed, admission = await _claim(session, database, worker_id, found, now)
    _tell(again, admission)
    return claimed


async def claim_oldest(
    database: Database,
    worker_id: UUID,
    scope: Scope,
    queue: str,
    limit: int,
    again: Again = _nobody,
    *,
    rescued: bool = False,
) -> AsyncIterator[Claimed]:
    """Claims up to `limit` jobs of one queue that have waited longest, rescued ones first, then by priority.

    `rescued`: no others. Each is handed out once its claim is committed, so that an error afterwards takes none of them
    away.

    Jobs that a limit of their own holds back are passed over: it looks again among the others that wait, in a
    transaction of its own, so that control rows are always locked in the same order; and it looks before it locks,
    because they may stand behind very many.
    """
    left = limit
    seen: Sequence[UUID] | None = None
    which = (JobLog.queue == queue, RESCUED) if rescued else (JobLog.queue == queue,)
    while left and scope.names:
        async with database.transaction() as session:
            now = await database.now(session)
            if seen is None:
                found = await _lock(session, scope, now, left, JobLog.queue == queue, RESCUED)
                if not rescued:
                    rest = left - len(found)
                    found += await _lock(session, scope, now, rest, JobLog.queue == queue, ~RESCUED)
            else:
                found = await _lock(session, scope, now, left, *which, JobLog.id.in_(seen))
            more, admission = await _claim(session, database, worker_id, found, now)
            full = admission.full_jobs and admission.full_jobs | await full_jobs(session, database)
            others = await waiting_names(session, set(scope.names) - full) if full else ()
        _tell(again, admission)
        for job in more:
            yield job
        left -= len(more)
        if not full or queue in admission.full_queues:
            break
        scope = replace(scope, names=others)
        seen = await _look(database, scope, now, left, *which) if others else ()
        if not seen:
            break


async def held_rows(database: Database, worker_id: UUID) -> list[Claimed]:
    """The running rows of this worker id, as it would have got them from its claims."""
    async with database.read() as connection:
        rows = await connection.execute(
            sa.select(*COLUMNS).where(JobLog.worker_id == worker_id, JobLog.status == "running")
        )
        return [Claimed(*row) for row in rows]


FIRST = (JobLog.priority, JobLog.run_at)
RESCUED = JobLog.lane != sa.literal_column("'normal'")


async def _lock(
    session: AsyncSession,
    scope: Scope,
    now: datetime,
    limit: int,
    *which: sa.ColumnElement[bool],
    first: Sequence[sa.ColumnElement[Any] | InstrumentedAttribute[Any]] = FIRST,
) -> list[tuple[UUID, str, str]]:
    """The first of them that may be claimed, locked; what others hold is passed over."""
    if not limit:
        return []
    found = sa.select(JobLog.id, JobLog.job_name, JobLog.queue).where(*_may_start(scope, now), *which)
    locked = found.order_by(*first).limit(limit).with_for_update(of=JobLog, skip_locked=True)
    return [(row[0], row[1], row[2]) for row in await session.execute(locked)]


def _may_start(scope: Scope, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        QUEUED,
        JobLog.run_at <= now,
        JobLog.job_name.in_(scope.names),
        JobLog.queue.in_(scope.queues),
        JobLog.priority.between(scope.low, scope.high),
        JobLog.deleted_at.is_(None),
        *unpaused(),
    )


async def _look(
    database: Database, scope: Scope, now: datetime, limit: int, *which: sa.ColumnElement[bool]
) -> Sequence[UUID]:
    """The first of them that may start, without locking anything."""
    wanted = sa.select(JobLog.id).where(*_may_start(scope, now), *which)
    async with database.read() as connection:
        return (await connection.scalars(wanted.order_by(*FIRST).limit(limit))).all()


async def _claim(
    session: AsyncSession,
    database: Database,
    worker_id: UUID,
    found: Sequence[tuple[UUID, str, str]],
    now: datetime,
) -> tuple[list[Claimed], Admission]:
    admission = await within_limits(session, database, found)
    ids = admission.ids
    if not ids:
        return [], admission
    declared_dead = sa.exists().where(Worker.id == worker_id, Worker.ended_at.is_not(None))
    statement = (
        sa.update(JobLog)
        .where(JobLog.id.in_(ids), JobLog.status == "queued", ~declared_dead)
        .values(
            status="running",
            worker_id=worker_id,
            epoch=JobLog.epoch + 1,
            attempt=JobLog.attempt + 1,
            rev=JobLog.rev + 1,
            started_at=admission.at or now,
            completed_at=None,
            progress=None,
            progress_note=None,
        )
        .returning(*COLUMNS)
        .execution_options(synchronize_session=False)
    )
    claimed = [Claimed(*row) for row in await session.execute(statement)]
    counts: Counter[Key] = Counter()
    for job in claimed:
        moved(counts, job, "queued", "running")
        emit(session, "job.started", event_data(job), job.user_id)
        changed(session, "job", job.id, job.rev)
    count(session, counts)
    order = {job_id: place for place, job_id in enumerate(ids)}
    return sorted(claimed, key=lambda job: order[job.id]), admission


def _tell(again: Again, admission: Admission) -> None:
    for name, seconds in admission.again_s.items():
        again(name, seconds)
