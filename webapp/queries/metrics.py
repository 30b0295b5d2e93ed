"""The figures that /metrics shows, in a handful of statements that indexes and small tables answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.webhook_metrics import WebhookFigures, webhook_figures
from worker.db.base import utc_now
from worker.events.models import OutboxRow
from worker.joblogs.backlog import oldest_waiting
from worker.joblogs.dead_letters import UNRESOLVED
from worker.joblogs.models import JobCounter, JobCounterDelta, JobLog
from worker.jobs.models import JobCatalogue, Queue
from worker.process.models import Worker

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
WINDOW = timedelta(minutes=5)
WINDOW_ROWS = 20_000
"""A busy desk is described by its newest jobs of the window."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """`at_most[i]` durations are no longer than `BUCKETS_S[i]`."""

    count: int
    total_s: float
    at_most: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    jobs: dict[tuple[str, str, str], float]
    depths: dict[str, float]
    ages_s: dict[str, float]
    paused: list[str]
    waits: dict[str, Histogram]
    runs: dict[str, Histogram]
    workers: dict[str, float]
    slots: float
    busy: float
    stale_finishes: float
    unpublished: float
    outbox_lag_s: float
    limits: dict[str, float] = field(default_factory=dict)
    """Queues that have one: how many may run at once."""
    paused_jobs: list[str] = field(default_factory=list)
    dead_letters: dict[str, float] = field(default_factory=dict)
    """By job: failed, and nobody has resolved it."""
    deliveries: WebhookFigures = field(default_factory=WebhookFigures)


async def figures(connection: AsyncConnection) -> Figures:
    """What stands in the database now."""
    jobs = await _jobs(connection)
    workers = (await connection.execute(_WORKERS)).all()
    now = utc_now()
    live = [row for row in workers if row.live]
    queues = (await connection.execute(_QUEUES)).all()
    unpublished, oldest = (await connection.execute(_UNPUBLISHED)).one()
    depths: dict[str, float] = {}
    for (_, queue, status), number in jobs.items():
        depths[queue] = depths.get(queue, 0.0) + (number if status == "queued" else 0.0)
    waiting_since = await oldest_waiting(connection, [queue for queue, depth in depths.items() if depth > 0])
    return Figures(
        jobs=jobs,
        depths=depths,
        ages_s={queue: max(0.0, (now - at).total_seconds()) for queue, at in waiting_since.items()},
        paused=[row.name for row in queues if row.paused_at is not None],
        waits=await _histograms(connection, JobLog.run_at, JobLog.started_at),
        runs=await _histograms(connection, JobLog.started_at, JobLog.completed_at),
        workers={row.kind: float(row.n) for row in live},
        slots=float(sum(row.slots for row in live)),
        busy=float(sum(row.busy for row in live)),
        stale_finishes=float(sum(row.stale for row in workers)),
        unpublished=float(unpublished),
        outbox_lag_s=max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
        limits={row.name: float(row.concurrency) for row in queues if row.concurrency is not None},
        paused_jobs=list(await connection.scalars(_PAUSED_JOBS)),
        dead_letters={name: float(n) for name, n in await connection.execute(_DEAD_LETTERS)},
        deliveries=await webhook_figures(connection, now),
    )


async def _jobs(connection: AsyncConnection) -> dict[tuple[str, str, str], float]:
    every = sa.union_all(
        sa.select(JobCounter.job_name, JobCounter.queue, JobCounter.status, JobCounter.n),
        sa.select(
            JobCounterDelta.job_name, JobCounterDelta.queue, JobCounterDelta.status, JobCounterDelta.delta
        ),
    ).subquery()
    keys = (every.c.job_name, every.c.queue, every.c.status)
    summed = await connection.execute(sa.select(*keys, sa.func.sum(every.c.n)).group_by(*keys))
    return {(name, queue, status): float(number) for name, queue, status, number in summed}


async def _histograms(connection: AsyncConnection, start: Any, end: Any) -> dict[str, Histogram]:
    """By queue, of the jobs that ended within the window."""
    since = utc_now() - WINDOW
    newest = (
        sa.select(JobLog.queue, _seconds(start, end, connection.dialect.name).label("s"))
        .where(JobLog.completed_at > since, JobLog.started_at.is_not(None))
        .order_by(JobLog.completed_at.desc())
        .limit(WINDOW_ROWS)
    ).subquery()
    buckets = [sa.func.sum(sa.case((newest.c.s <= bound, 1), else_=0)) for bound in BUCKETS_S]
    found = await connection.execute(
        sa.select(newest.c.queue, sa.func.count(), sa.func.sum(newest.c.s), *buckets).group_by(newest.c.queue)
    )
    return {
        queue: Histogram(int(count), float(total), tuple(map(int, at_most)))
        for queue, count, total, *at_most in found
    }


def _seconds(start: Any, end: Any, dialect: str) -> sa.ColumnElement[float]:
    if dialect == "sqlite":
        days = sa.func.julianday(end) - sa.func.julianday(start)
        return sa.cast(days * 86_400.0, sa.Float)
    return sa.cast(sa.extract("epoch", end) - sa.extract("epoch", start), sa.Float)


_WORKERS = sa.select(
    Worker.kind,
    Worker.ended_at.is_(None).label("live"),
    sa.func.count().label("n"),
    sa.func.sum(Worker.slots).label("slots"),
    sa.func.sum(Worker.busy).label("busy"),
    sa.func.sum(Worker.stale_finishes).label("stale"),
).group_by(Worker.kind, Worker.ended_at.is_(None))

_QUEUES = sa.select(Queue.name, Queue.paused_at, Queue.concurrency).where(
    sa.or_(Queue.paused_at.is_not(None), Queue.concurrency.is_not(None))
)
_PAUSED_JOBS = sa.select(JobCatalogue.name).where(JobCatalogue.paused_at.is_not(None))
_DEAD_LETTERS = sa.select(JobLog.job_name, sa.func.count()).where(*UNRESOLVED).group_by(JobLog.job_name)

_UNPUBLISHED = sa.select(
    sa.func.count(), sa.type_coerce(sa.func.min(OutboxRow.created_at), OutboxRow.created_at.type)
).where(OutboxRow.published_at.is_(None))
