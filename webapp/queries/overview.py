"""The SELECTs of the overview: what needs a person, how failures spread, how fast it goes, what just happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.catalogue import percentile
from webapp.queries.queues import SAMPLE
from worker.db.base import utc_now
from worker.events.models import OutboxRow
from worker.joblogs.models import JobLog

GRID = {
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "24h": timedelta(hours=24),
    "3d": timedelta(days=3),
    "7d": timedelta(days=7),
}
LOOKED_AT = 100_000
"""Failures are spread over time among this many of the newest."""
FEED = 50
FAILED = JobLog.status == sa.literal_column("'failed'")
CANCELLED = JobLog.status == sa.literal_column("'cancelled'")
"""As the partial indexes have them."""


# Failures


@dataclass(frozen=True, slots=True)
class GridRow:
    """How often one job failed in each window, by the window's name."""

    job_name: str
    cells: dict[str, int]


async def failure_grid(connection: AsyncConnection, limit: int = 12) -> list[GridRow]:
    """The jobs that failed in the last seven days, the most failing ones first."""
    now = utc_now()
    newest = (
        sa.select(JobLog.job_name, JobLog.completed_at)
        .where(FAILED, JobLog.deleted_at.is_(None))
        .where(JobLog.completed_at >= now - GRID["7d"])
        .order_by(JobLog.completed_at.desc())
        .limit(LOOKED_AT)
        .subquery()
    )
    counts = [
        sa.func.count(sa.case((newest.c.completed_at >= now - span, 1))).label(name)
        for name, span in GRID.items()
    ]
    statement = sa.select(newest.c.job_name, *counts).group_by(newest.c.job_name)
    rows = (await connection.execute(statement)).mappings()
    grid = [GridRow(row["job_name"], {name: row[name] for name in GRID}) for row in rows]
    return sorted(grid, key=lambda row: (-row.cells["24h"], -row.cells["7d"], row.job_name))[:limit]


# Speed


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bar: how many ended well and badly in it."""

    start: datetime
    label: str
    succeeded: int
    failed: int


CHARTS: dict[str, tuple[timedelta, int, str]] = {
    "1h": (timedelta(hours=1), 60, "%H:%M"),
    "24h": (timedelta(hours=24), 1800, "%H:%M"),
    "7d": (timedelta(days=7), 14_400, "%d %b"),
}
"""Name -> (span, seconds in a bucket, how its start is written, in UTC)."""


async def throughput(connection: AsyncConnection, window: str) -> list[Bucket]:
    """Ended jobs per bucket, oldest first; the last one is still filling. All counted from indexes alone."""
    span, width, label = CHARTS[window]
    now = utc_now()
    numbers = range(int((now - span).timestamp()) // width + 1, int(now.timestamp()) // width + 1)
    starts = [datetime.fromtimestamp(number * width, UTC) for number in numbers]
    ended = await _counts(connection, starts, width)
    failed = await _counts(connection, starts, width, FAILED)
    cancelled = await _counts(connection, starts, width, CANCELLED)
    return [
        Bucket(at, at.strftime(label), max(0, every - badly - stopped), badly)
        for at, every, badly, stopped in zip(starts, ended, failed, cancelled, strict=True)
    ]


async def _counts(
    connection: AsyncConnection, starts: Sequence[datetime], width: int, *wanted: sa.ColumnElement[bool]
) -> list[int]:
    """How many such jobs ended in each bucket: a range of the index each, no sorting and no arithmetic per row."""
    each = [
        sa.select(sa.literal(place).label("place"), sa.func.count().label("n"))
        .select_from(JobLog)
        .where(*wanted, JobLog.completed_at >= start, JobLog.completed_at < start + timedelta(seconds=width))
        for place, start in enumerate(starts)
    ]
    return [n for _, n in sorted((await connection.execute(sa.union_all(*each))).tuples())]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the jobs of a queue waited and ran, in seconds."""

    queue: str
    runs: int
    wait: dict[str, float | None]
    run: dict[str, float | None]


async def latencies(connection: AsyncConnection, window: str) -> list[Latency]:
    """p50, p95 and p99 per queue, over the window or, if that holds more, over its last two thousand runs."""
    statement = (
        sa.select(JobLog.queue, JobLog.run_at, JobLog.started_at, JobLog.completed_at)
        .where(JobLog.completed_at >= utc_now() - CHARTS[window][0], JobLog.started_at.is_not(None))
        .order_by(JobLog.completed_at.desc())
        .limit(SAMPLE)
    )
    waits: dict[str, list[float]] = {}
    runs: dict[str, list[float]] = {}
    for queue, run_at, started_at, completed_at in await connection.execute(statement):
        waits.setdefault(queue, []).append(max(0.0, (started_at - run_at).total_seconds()))
        runs.setdefault(queue, []).append(max(0.0, (completed_at - started_at).total_seconds()))
    return [
        Latency(queue, len(waits[queue]), _percentiles(waits[queue]), _percentiles(runs[queue]))
        for queue in sorted(waits)
    ]


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "p99": percentile(values, 0.99)}


# What just happened


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of the feed."""

    event_id: str
    at: datetime
    event_type: str
    status: str
    job_id: str
    job_name: str
    queue: str
    actor: str | None


STATUS_OF = {
    "job.queued": "queued",
    "job.scheduled": "scheduled",
    "job.started": "running",
    "job.running": "running",
    "job.succeeded": "success",
    "job.success": "success",
    "job.failed": "failed",
    "job.retrying": "retrying",
    "job.cancelled": "cancelled",
    "job.lost": "lost",
}


async def feed(connection: AsyncConnection, limit: int = FEED) -> list[Transition]:
    """The last transitions, newest first, as the outbox recorded them."""
    found: list[Transition] = []
    oldest: UUID | None = None
    for rows_at_once in (5, 20, 50):
        statement = (
            sa.select(OutboxRow.id, OutboxRow.events).order_by(OutboxRow.id.desc()).limit(rows_at_once)
        )
        if oldest is not None:
            statement = statement.where(OutboxRow.id < oldest)
        rows = (await connection.execute(statement)).all()
        for row in rows:
            found += [entry for event in reversed(row.events) if (entry := _transition(event)) is not None]
        if len(found) >= limit or len(rows) < rows_at_once:
            break
        oldest = rows[-1].id
    return found[:limit]


def _transition(event: dict[str, Any]) -> Transition | None:
    status, data = STATUS_OF.get(event.get("event_type", "")), event.get("data") or {}
    if status is None or "job_id" not in data:
        return None
    return Transition(
        event_id=str(event["event_id"]),
        at=datetime.fromisoformat(event["timestamp"]),
        event_type=str(event["event_type"]),
        status=status,
        job_id=str(data["job_id"]),
        job_name=str(data.get("job_name", "")),
        queue=str(data.get("queue", "")),
        actor=event.get("user_id"),
    )
