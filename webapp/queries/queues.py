"""The SELECTs behind the queues table: how many wait, how long, who takes them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.workers import taken_queues
from worker.db.base import utc_now
from worker.joblogs.backlog import oldest_waiting
from worker.joblogs.counters import by_queue
from worker.joblogs.models import JobCounter, JobCounterDelta, JobLog
from worker.jobs.models import JobCatalogue, Queue

SAMPLE = 2_000
"""Rates and latencies are read from at most this many of the jobs that ended last."""
RATE_WINDOW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as the overview shows it. `oldest_at` is when its longest waiting job became due."""

    name: str
    waiting: int
    running: int
    later: int
    """Scheduled or retrying: not due yet."""
    oldest_at: datetime | None
    late: bool
    """Whether its oldest job has waited longer than it should."""
    limit: int | None
    per_minute: int
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    has_worker: bool
    """Whether a live worker takes jobs from it."""
    rev: int


async def list_queues(connection: AsyncConnection, late_after_s: float) -> list[QueueView]:
    """Every queue that was ever used or that a job of the catalogue names, by name."""
    counts = await by_queue(connection)
    return await _views(connection, sorted(await queue_names(connection)), counts, late_after_s)


async def load_queues(
    connection: AsyncConnection, names: Collection[str], late_after_s: float
) -> dict[str, QueueView]:
    views = await _views(connection, sorted(names), await by_queue(connection), late_after_s)
    return {view.name: view for view in views}


async def _views(
    connection: AsyncConnection, names: list[str], counts: dict[tuple[str, str], int], late_after_s: float
) -> list[QueueView]:
    rows = await connection.execute(sa.select(Queue.__table__).where(Queue.name.in_(names)))
    controls = {row.name: row for row in rows}
    oldest = await oldest_waiting(connection, [name for name in names if counts.get((name, "queued"), 0) > 0])
    rates, taken = await per_minute(connection), await taken_queues(connection)
    late_before = utc_now() - timedelta(seconds=late_after_s)

    def view(name: str) -> QueueView:
        control: Any = controls.get(name)
        return QueueView(
            name=name,
            waiting=max(0, counts.get((name, "queued"), 0)),
            running=max(0, counts.get((name, "running"), 0)),
            later=max(0, counts.get((name, "scheduled"), 0) + counts.get((name, "retrying"), 0)),
            oldest_at=oldest.get(name),
            late=name in oldest and oldest[name] < late_before,
            limit=control.concurrency if control else None,
            per_minute=round(rates.get(name, 0.0)),
            paused_at=control.paused_at if control else None,
            paused_by=control.paused_by if control else None,
            pause_reason=control.pause_reason if control else None,
            has_worker=name in taken or "*" in taken,
            rev=control.rev if control else 0,
        )

    return [view(name) for name in names]


async def per_minute(connection: AsyncConnection) -> dict[str, float]:
    """How many jobs each queue ends in a minute, over the last five or over the sample if that is shorter."""
    now = utc_now()
    statement = (
        sa.select(JobLog.queue, JobLog.completed_at)
        .where(JobLog.completed_at > now - RATE_WINDOW)
        .order_by(JobLog.completed_at.desc())
        .limit(SAMPLE)
    )
    rows = (await connection.execute(statement)).all()
    span = RATE_WINDOW if len(rows) < SAMPLE else max(now - rows[-1].completed_at, timedelta(seconds=1))
    minutes = span.total_seconds() / 60
    counts: dict[str, int] = {}
    for queue, _ in rows:
        counts[queue] = counts.get(queue, 0) + 1
    return {queue: n / minutes for queue, n in counts.items()}


async def queue_names(connection: AsyncConnection) -> set[str]:
    """Every queue that has a control, that the catalogue names, or that ever held a job."""
    named = (Queue.name, JobCatalogue.queue, JobCounter.queue, JobCounterDelta.queue)
    return set(await connection.scalars(sa.union(*(sa.select(column) for column in named))))
