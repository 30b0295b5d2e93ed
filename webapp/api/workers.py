"""/api/v1/workers: the processes that run jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from litestar import Request, get, post
from msgspec import Meta, Struct

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import Instant, exact, instant
from webapp.auth import actor, operator, viewer
from worker.db.base import utc_now
from worker.process import actions
from worker.process.models import Worker

AnyRequest = Request[Any, Any, Any]
KEPT_FOR = timedelta(hours=24)


class WorkerState(Struct):
    """One start of one process."""

    worker_id: str
    kind: Literal["worker", "clerk", "inline"]
    host: str
    pid: int
    version: str
    queues: list[str]
    jobs: list[str]
    priorities: Annotated[
        str, Meta(description="the range that it takes, as given to `m worker --priorities`")
    ]
    slots: int
    busy: int
    memory_mb: float | None
    max_memory_mb: Annotated[float | None, Meta(description="beyond this it is replaced")]
    max_jobs: Annotated[int | None, Meta(description="after so many jobs it is replaced")]
    wish: Annotated[Literal["drain", "restart"] | None, Meta(description="what an operator asked of it")]
    alive: Annotated[bool, Meta(description="it has not ended and its last beat is not older than its lease")]
    beat_at: Instant
    started_at: Instant
    stopping_at: Instant | None
    ended_at: Instant | None
    end_reason: str | None
    stale_finishes: Annotated[int, Meta(description="results that came too late and were dropped")]


class WorkerStates(Struct):
    items: list[WorkerState]


class WorkerQuery(Struct):
    """Which workers."""

    ended: Annotated[bool, Meta(description="true or false: also those that ended in the last 24 hours")] = (
        False
    )


@get(
    "/workers",
    guards=[viewer],
    operation_class=documented(query=WorkerQuery, answer={"items": [examples.WORKER]}),
    summary="List workers",
)
async def list_workers(request: AnyRequest) -> WorkerStates:
    """Newest first."""
    asked = strict.query(request, WorkerQuery)
    shown: sa.ColumnElement[bool] = Worker.ended_at.is_(None)
    if asked.ended:
        shown = sa.or_(shown, Worker.ended_at > utc_now() - KEPT_FOR)
    workers = sa.select(Worker.__table__).where(shown).order_by(Worker.id.desc()).limit(1000)
    async with database(request).read() as connection:
        rows = (await connection.execute(workers)).mappings().all()
    return WorkerStates([_state(row, _lease(request)) for row in rows])


@post(
    "/workers/{worker_id:uuid}/drain",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.WORKER | {"wish": "drain"}, problems=(404, 409, 422)),
    summary="Drain a worker",
)
async def drain_worker(request: AnyRequest, worker_id: UUID) -> WorkerState:
    """It takes nothing new and ends when its jobs have; no other takes its place until its supervisor is told to. It hears of it with its next beat."""
    return await _ask(request, worker_id, "drain")


@post(
    "/workers/{worker_id:uuid}/restart",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.WORKER | {"wish": "restart"}, problems=(404, 409, 422)),
    summary="Restart a worker",
)
async def restart_worker(request: AnyRequest, worker_id: UUID) -> WorkerState:
    """A new process takes its place; what it runs may finish. It hears of it with its next beat."""
    return await _ask(request, worker_id, "restart")


routes = [list_workers, drain_worker, restart_worker]


async def _ask(request: AnyRequest, worker_id: UUID, wish: actions.Wish) -> WorkerState:
    async with database(request).transaction() as session:
        await actions.ask(session, worker_id, wish, actor=actor(request))
        row = (
            (await session.execute(sa.select(Worker.__table__).where(Worker.id == worker_id)))
            .mappings()
            .one()
        )
    return _state(row, _lease(request))


def _lease(request: AnyRequest) -> timedelta:
    return timedelta(seconds=request.app.state.engine.settings.lease_s)


def _state(row: sa.RowMapping, lease: timedelta) -> WorkerState:
    return WorkerState(
        worker_id=str(row["id"]),
        **{field: row[field] for field in _PLAIN},
        alive=row["ended_at"] is None and utc_now() - row["beat_at"] <= lease,
        beat_at=exact(row["beat_at"]),
        started_at=exact(row["started_at"]),
        stopping_at=instant(row["stopping_at"]),
        ended_at=instant(row["ended_at"]),
    )


_PLAIN = (
    "kind",
    "host",
    "pid",
    "version",
    "queues",
    "jobs",
    "priorities",
    "slots",
    "busy",
    "memory_mb",
    "max_memory_mb",
    "max_jobs",
    "wish",
    "end_reason",
    "stale_finishes",
)
