"""The SELECTs of the workers page: who runs, what they hold, and which queues nobody takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.job_logs import list_columns
from webapp.queries.views import JobView, job_view
from worker.db.base import utc_now
from worker.joblogs.models import JobLog
from worker.process.models import Worker

GONE_FOR = timedelta(hours=1)
"""An ended worker stays on the page for this long, with its reason."""
SHOWN_JOBS = 20
SILENT_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One process, and what it says it is doing."""

    id: UUID
    supervisor_id: UUID | None
    kind: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    jobs: tuple[str, ...]
    priorities: str
    slots: int
    busy: int
    memory_mb: float | None
    max_memory_mb: float | None
    max_jobs: int | None
    beat_at: datetime
    started_at: datetime
    stopping_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    wish: str | None
    stale_finishes: int
    rev: int
    late: bool
    """Whether its beat is overdue."""
    current: tuple[JobView, ...]

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"

    @property
    def takes_jobs(self) -> bool:
        return self.kind != "clerk" and self.ended_at is None and self.stopping_at is None


async def list_workers(connection: AsyncConnection) -> list[WorkerView]:
    """Those that live, oldest first, then those that ended in the last hour."""
    alive_first = sa.case((Worker.ended_at.is_(None), 0), else_=1)
    statement = (
        sa.select(Worker.__table__)
        .where(sa.or_(Worker.ended_at.is_(None), Worker.ended_at > utc_now() - GONE_FOR))
        .order_by(alive_first, Worker.host, Worker.kind.desc(), Worker.started_at)
        .limit(500)
    )
    return await _views(connection, (await connection.execute(statement)).all())


async def load_workers(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, WorkerView]:
    statement = sa.select(Worker.__table__).where(Worker.id.in_(ids))
    return {view.id: view for view in await _views(connection, (await connection.execute(statement)).all())}


async def one_worker(connection: AsyncConnection, worker_id: UUID) -> WorkerView | None:
    return (await load_workers(connection, [worker_id])).get(worker_id)


async def _views(connection: AsyncConnection, rows: Sequence[sa.Row[Any]]) -> list[WorkerView]:
    running = await _running(connection, [row.id for row in rows])
    now = utc_now()
    return [_view(row, running.get(row.id, ()), now) for row in rows]


async def _running(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, tuple[JobView, ...]]:
    statement = (
        list_columns(connection.dialect.name)
        .where(JobLog.status == "running", JobLog.worker_id.in_(ids))
        .order_by(JobLog.started_at)
        .limit(500)
    )
    found: dict[UUID, tuple[JobView, ...]] = {}
    for row in await connection.execute(statement):
        found[row.worker_id] = (*found.get(row.worker_id, ()), job_view(row))
    return {worker_id: jobs[:SHOWN_JOBS] for worker_id, jobs in found.items()}


def _view(row: sa.Row[Any], running: tuple[JobView, ...], now: datetime) -> WorkerView:
    return WorkerView(
        id=row.id,
        supervisor_id=row.supervisor_id,
        kind=row.kind,
        host=row.host,
        pid=row.pid,
        version=row.version,
        queues=tuple(str(queue) for queue in row.queues),
        jobs=tuple(str(name) for name in row.jobs),
        priorities=row.priorities,
        slots=row.slots,
        busy=max(row.busy, len(running)) if row.ended_at is None else 0,
        memory_mb=row.memory_mb,
        max_memory_mb=row.max_memory_mb,
        max_jobs=row.max_jobs,
        beat_at=row.beat_at,
        started_at=row.started_at,
        stopping_at=row.stopping_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        wish=row.wish,
        stale_finishes=row.stale_finishes,
        rev=row.rev,
        late=row.ended_at is None and (now - row.beat_at).total_seconds() > SILENT_AFTER_S,
        current=running,
    )


# Queues nobody takes


async def taken_queues(connection: AsyncConnection) -> set[str]:
    """Names of the queues that a live process takes jobs from; `*` when one takes any."""
    statement = sa.select(Worker.queues, Worker.kind, Worker.beat_at).where(
        Worker.ended_at.is_(None), Worker.stopping_at.is_(None), Worker.kind.in_(("worker", "inline"))
    )
    oldest = utc_now() - timedelta(seconds=SILENT_AFTER_S * 2)
    rows = await connection.execute(statement.where(Worker.beat_at > oldest))
    return {str(queue).partition(":")[0] for row in rows for queue in (row.queues or ["*"])}
