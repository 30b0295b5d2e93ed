"""Numbers that cost little: sums of the counter table, or counts that stop at 10,000."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.db.base import utc_now
from worker.joblogs.conditions import conditions
from worker.joblogs.dead_letters import UNRESOLVED
from worker.joblogs.models import JobCounter, JobCounterDelta, JobLog
from worker.joblogs.search import STATUSES, JobFilter

CAP = 10_000


@dataclass(frozen=True, slots=True)
class Counters:
    """What the navigation shows: each number links to its rows."""

    failed: str
    """Failed and not resolved."""
    running: str
    late: str
    rev: int


def words(n: int) -> str:
    """`412`, `10k+`: a count as a tab says it. Zero is the empty string."""
    if n > CAP:
        return "10k+"
    return f"{n:,}".replace(",", "\u202f") if n > 0 else ""


async def counters(connection: AsyncConnection, late_after_s: float) -> Counters:
    failed = await capped(connection, *UNRESOLVED)
    running = await capped(connection, JobLog.status == sa.literal_column("'running'"))
    late = await late_count(connection, utc_now() - timedelta(seconds=late_after_s))
    return Counters(words(failed), words(running), words(late), time.time_ns() // 1_000_000)


async def capped(connection: AsyncConnection, *wanted: sa.ColumnElement[bool], cap: int = CAP) -> int:
    """How many rows satisfy this, counted no further than `cap` + 1."""
    rows = sa.select(sa.literal(1)).select_from(JobLog).where(*wanted).limit(cap + 1).subquery()
    return await connection.scalar(sa.select(sa.func.count()).select_from(rows)) or 0


async def late_count(connection: AsyncConnection, before: datetime) -> int:
    """Queued jobs that have waited since before then; one seek per queue and priority in the index of the waiting."""
    queues = (
        await connection.scalars(sa.select(JobCounter.queue).union(sa.select(JobCounterDelta.queue)))
    ).all()
    if not queues:
        return 0
    return await capped(
        connection,
        JobLog.status == sa.literal_column("'queued'"),
        JobLog.queue.in_(queues),
        JobLog.priority.in_(range(10)),
        JobLog.run_at < before,
    )


async def status_counts(
    connection: AsyncConnection, wanted: JobFilter, late_after_s: float
) -> dict[str, int | None]:
    """How many jobs each status tab holds under the rest of the filter; None where a count would cost too much."""
    rest = wanted.with_status()
    if wanted.problems or rest.scans:
        return dict.fromkeys(STATUSES)
    if rest.empty or _only_names(rest):
        found: dict[str, int | None] = {**dict.fromkeys(STATUSES, 0), **await _summed(connection, rest)}
    else:
        found = {
            s: await _counted(connection, rest.with_status(s), late_after_s) for s in STATUSES if s != "late"
        }
    found["late"] = await _counted(connection, rest.with_status("late"), late_after_s)
    return found


def _only_names(wanted: JobFilter) -> bool:
    """Whether the counter table knows everything the filter asks: jobs and queues."""
    return wanted == JobFilter(jobs=wanted.jobs, queues=wanted.queues)


async def _summed(connection: AsyncConnection, wanted: JobFilter) -> dict[str, int]:
    total = sa.union_all(
        *(
            sa.select(table.status, column.label("n")).where(
                *([table.job_name.in_(wanted.jobs)] if wanted.jobs else []),
                *([table.queue.in_(wanted.queues)] if wanted.queues else []),
            )
            for table, column in _TABLES
        )
    ).subquery()
    statement = sa.select(total.c.status, sa.func.sum(total.c.n)).group_by(total.c.status)
    return {status: max(0, int(n)) for status, n in await connection.execute(statement)}


_TABLES: tuple[tuple[Any, Any], ...] = ((JobCounter, JobCounter.n), (JobCounterDelta, JobCounterDelta.delta))


async def _counted(connection: AsyncConnection, wanted: JobFilter, late_after_s: float) -> int:
    late_before = utc_now() - timedelta(seconds=late_after_s)
    if wanted == JobFilter(statuses=("late",)):
        return await late_count(connection, late_before)
    return await capped(connection, *conditions(wanted, connection.dialect.name, late_before).indexed)


async def matching(connection: AsyncConnection, wanted: JobFilter, late_after_s: float) -> int | None:
    """How many jobs match, counted to 10,001; None when only a search through all of them could tell."""
    if wanted.problems or wanted.scans:
        return None
    return await _counted(connection, wanted, late_after_s)
