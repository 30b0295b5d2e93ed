"""Claiming: one statement turns queued rows into rows that this worker holds, fenced by a new epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.session import Database, changed, emit
from worker.joblogs.counters import Key, count, moved
from worker.joblogs.enqueue import event_data
from worker.joblogs.limits import QUEUED, Admission, full_jobs, unpaused, within_limits
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
        ready = _ready(scope, now).where(JobLog.id.in_(ids)).order_by(JobLog.id)
        claimed, admission = await _claim(session, database, worker_id, ready, now)
    _tell(again, admission)
    return claimed


async def claim_oldest(
    database: Database, worker_id: UUID, scope: Scope, queue: str, limit: int, again: Again = _nobody
) -> list[Claimed]:
    """Claims up to `limit` jobs of one queue that have waited longest, rescued ones first, then by priority.

    Jobs that a limit of their own holds back are passed over: it looks again without them, in a transaction of its
    own, so that control rows are always locked in the same order.
    """
    claimed: list[Claimed] = []
    full: set[str] = set()
    while len(claimed) < limit:
        async with database.transaction() as session:
            now = await database.now(session)
            ready = _oldest(scope, now, queue, full).limit(limit - len(claimed))
            more, admission = await _claim(session, database, worker_id, ready, now)
            new = set(admission.full_jobs - full)
            full |= new | (await full_jobs(session, database) if new else set())
        _tell(again, admission)
        claimed += more
        if not new or queue in admission.full_queues:
            break
    return claimed


async def held_rows(database: Database, worker_id: UUID) -> list[Claimed]:
    """The running rows of this worker id, as it would have got them from its claims."""
    async with database.read() as connection:
        rows = await connection.execute(
            sa.select(*COLUMNS).where(JobLog.worker_id == worker_id, JobLog.status == "running")
        )
        return [Claimed(*row) for row in rows]


def _ready(scope: Scope, now: datetime) -> sa.Select[tuple[UUID, str, str]]:
    return (
        sa.select(JobLog.id, JobLog.job_name, JobLog.queue)
        .where(
            QUEUED,
            JobLog.run_at <= now,
            JobLog.job_name.in_(scope.names),
            JobLog.queue.in_(scope.queues),
            JobLog.priority.between(scope.low, scope.high),
            JobLog.deleted_at.is_(None),
            *unpaused(),
        )
        .with_for_update(of=JobLog, skip_locked=True)
    )


def _oldest(
    scope: Scope, now: datetime, queue: str, without: Collection[str]
) -> sa.Select[tuple[UUID, str, str]]:
    found = _ready(scope, now).where(JobLog.queue == queue)
    if without:
        found = found.where(JobLog.job_name.not_in(without))
    return found.order_by(JobLog.priority, JobLog.run_at)


async def _claim(
    session: AsyncSession,
    database: Database,
    worker_id: UUID,
    ready: sa.Select[tuple[UUID, str, str]],
    now: datetime,
) -> tuple[list[Claimed], Admission]:
    found = [(row[0], row[1], row[2]) for row in await session.execute(ready)]
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
