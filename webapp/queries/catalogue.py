"""The SELECTs of the jobs page: what the code offers, and how it has been going."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.views import duration_s
from worker.db.base import utc_now
from worker.joblogs.models import TERMINAL, JobCounter, JobCounterDelta, JobLog
from worker.jobs.models import JobCatalogue
from worker.process.models import Worker

SPARK_RUNS = 60
NAMES_AT_ONCE = 50
ADVERTISED_FOR = timedelta(minutes=3)
"""Workers advertise every minute: a job not advertised for longer is offered by none."""


@dataclass(frozen=True, slots=True)
class Run:
    """One bar of a sparkline."""

    job_id: Any
    status: str
    duration_seconds: float | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class CatalogueView:
    """A job that workers offer. Rates and times are those of its last 60 runs, oldest first in `runs`."""

    name: str
    module: str
    queue: str
    doc: str
    parameters: tuple[dict[str, Any], ...]
    args_schema: dict[str, Any]
    retry: dict[str, Any]
    max_retries: int
    timeout_s: float
    isolation: str
    on_lost: str
    on_events: tuple[str, ...]
    schedules: tuple[dict[str, Any], ...]
    fingerprint: str
    advertised_at: datetime
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    concurrency: int | None
    rate_limit: float | None
    rate_burst: int | None
    rev: int
    has_worker: bool
    runs: tuple[Run, ...]

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.strip().partition("\n")[0]

    @property
    def success_rate(self) -> float | None:
        ended = [run for run in self.runs if run.status in ("success", "failed")]
        return sum(run.status == "success" for run in ended) / len(ended) if ended else None

    @property
    def p95_seconds(self) -> float | None:
        return percentile(
            [run.duration_seconds for run in self.runs if run.duration_seconds is not None], 0.95
        )

    @property
    def last_run_at(self) -> datetime | None:
        return self.runs[-1].completed_at if self.runs else None


async def list_catalogue(connection: AsyncConnection) -> list[CatalogueView]:
    rows = (
        await connection.execute(sa.select(JobCatalogue.__table__).order_by(JobCatalogue.name).limit(1000))
    ).all()
    return await _views(connection, rows)


async def load_catalogue(connection: AsyncConnection, names: Collection[str]) -> dict[str, CatalogueView]:
    statement = sa.select(JobCatalogue.__table__).where(JobCatalogue.name.in_(names))
    return {view.name: view for view in await _views(connection, (await connection.execute(statement)).all())}


async def one_catalogue_job(connection: AsyncConnection, name: str) -> CatalogueView | None:
    return (await load_catalogue(connection, [name])).get(name)


async def _views(connection: AsyncConnection, rows: Sequence[sa.Row[Any]]) -> list[CatalogueView]:
    runs = await last_runs(connection, [row.name for row in rows])
    offered = await _offered(connection)
    return [_view(row, runs.get(row.name, ()), row.name in offered) for row in rows]


async def _offered(connection: AsyncConnection) -> set[str]:
    """Names that a live worker says it can run."""
    statement = sa.select(Worker.jobs).where(
        Worker.ended_at.is_(None),
        Worker.kind.in_(("worker", "inline")),
        Worker.beat_at > utc_now() - ADVERTISED_FOR,
    )
    return {str(name) for names in await connection.scalars(statement) for name in names or ()}


async def unoffered(connection: AsyncConnection) -> dict[str, int]:
    """Jobs that wait in a queue now and that no live worker says it can run, with how many wait."""
    total = sa.union_all(
        sa.select(JobCounter.job_name, JobCounter.n).where(JobCounter.status == "queued"),
        sa.select(JobCounterDelta.job_name, JobCounterDelta.delta).where(JobCounterDelta.status == "queued"),
    ).subquery()
    statement = sa.select(total.c.job_name, sa.func.sum(total.c.n)).group_by(total.c.job_name)
    waiting = {name: int(n) for name, n in await connection.execute(statement) if n > 0}
    offered = await _offered(connection) if waiting else set()
    return {name: n for name, n in sorted(waiting.items()) if name not in offered}


def _view(row: sa.Row[Any], runs: Sequence[Run], offered: bool) -> CatalogueView:
    return CatalogueView(
        name=row.name,
        module=row.module,
        queue=row.queue,
        doc=row.doc,
        parameters=tuple(row.parameters or ()),
        args_schema=row.args_schema or {},
        retry=row.retry or {},
        max_retries=row.max_retries,
        timeout_s=row.timeout_s,
        isolation=row.isolation,
        on_lost=row.on_lost,
        on_events=tuple(str(pattern) for pattern in row.on_events or ()),
        schedules=tuple(row.schedules or ()),
        fingerprint=row.fingerprint,
        advertised_at=row.advertised_at,
        paused_at=row.paused_at,
        paused_by=row.paused_by,
        pause_reason=row.pause_reason,
        concurrency=row.concurrency,
        rate_limit=row.rate_limit,
        rate_burst=row.rate_burst,
        rev=row.rev,
        has_worker=offered,
        runs=tuple(runs),
    )


async def last_runs(
    connection: AsyncConnection, names: Sequence[str], limit: int = SPARK_RUNS
) -> dict[str, tuple[Run, ...]]:
    """The newest ended runs of each job, oldest first: one seek per job and status."""
    found: dict[str, list[Run]] = {}
    for start in range(0, len(names), NAMES_AT_ONCE):
        newest = [sa.select(_newest(name, limit)) for name in names[start : start + NAMES_AT_ONCE]]
        statement = sa.select(
            JobLog.id, JobLog.job_name, JobLog.status, JobLog.started_at, JobLog.completed_at
        )
        statement = statement.where(JobLog.id.in_(sa.union_all(*newest)), JobLog.deleted_at.is_(None))
        for row in await connection.execute(statement):
            run = Run(row.id, row.status, duration_s(row.started_at, row.completed_at), row.completed_at)
            found.setdefault(row.job_name, []).append(run)
    return {name: tuple(sorted(runs, key=lambda run: str(run.job_id))) for name, runs in found.items()}


def _newest(name: str, limit: int) -> sa.Subquery:
    """Ids of one job's newest ended runs, from the index alone: the newest of each status, then the newest of those."""
    each = [
        sa.select(JobLog.id)
        .where(JobLog.job_name == name, JobLog.status == status)
        .order_by(JobLog.id.desc())
        .limit(limit)
        .subquery()
        for status in TERMINAL
    ]
    ended = sa.union_all(*(sa.select(part) for part in each)).subquery()
    return sa.select(ended).order_by(ended.c.id.desc()).limit(limit).subquery()


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
