"""/api/v1/workers: the processes that run jobs."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from litestar import Request, get
from msgspec import Meta, Struct

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import Instant, exact, instant
from webapp.auth import viewer
from worker.db.base import utc_now
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
    lease = timedelta(seconds=request.app.state.engine.settings.lease_s)
    shown: sa.ColumnElement[bool] = Worker.ended_at.is_(None)
    if asked.ended:
        shown = sa.or_(shown, Worker.ended_at > utc_now() - KEPT_FOR)
    workers = sa.select(Worker.__table__).where(shown).order_by(Worker.id.desc()).limit(1000)
    async with database(request).read() as connection:
        rows = (await connection.execute(workers)).mappings().all()
    return WorkerStates([_state(row, lease) for row in rows])


routes = [list_workers]


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
    "end_reason",
    "stale_finishes",
)
