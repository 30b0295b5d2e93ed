"""/api/v1/queues: the lanes of jobs, how full they are, and their controls."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from litestar import Request, get, patch, post
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.api import examples, strict
from webapp.api.catalogue import Pause
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import Instant, Slots, instant
from webapp.auth import actor, operator, viewer
from worker.db.base import utc_now
from worker.errors import NotFound
from worker.joblogs import counters
from worker.joblogs.backlog import oldest_waiting
from worker.joblogs.models import LIVE
from worker.jobs import actions
from worker.jobs.models import JobCatalogue, Queue
from worker.process.models import Worker

AnyRequest = Request[Any, Any, Any]


class QueueState(Struct):
    """A queue as it stands."""

    name: str
    paused: bool
    paused_at: Instant | None
    paused_by: str | None
    pause_reason: str | None
    concurrency: Annotated[int | None, Meta(description="how many may run at once over all workers")]
    scheduled: int
    queued: int
    running: int
    retrying: int
    oldest_age_s: Annotated[
        float | None, Meta(description="how long the job that waits longest has been due")
    ]
    workers: Annotated[int, Meta(description="how many live workers take from it")]


class QueueStates(Struct):
    items: list[QueueState]


class QueueLimit(Struct):
    """How many jobs of the queue may run at once over all workers."""

    concurrency: Annotated[Slots | None, Meta(description="a whole number from 1 to 100000, or null")]


@get(
    "/queues",
    guards=[viewer],
    operation_class=documented(answer={"items": [examples.QUEUE]}),
    summary="List queues",
)
async def list_queues(request: AnyRequest) -> QueueStates:
    """Every queue that a job, a worker or a control names."""
    async with database(request).read() as connection:
        return QueueStates(await _states(connection))


@post(
    "/queues/{name:str}/pause",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=Pause,
        example={"reason": "mail server down"},
        optional_body=True,
        answer=examples.QUEUE,
        problems=(404,),
    ),
    summary="Pause a queue",
)
async def pause_queue(request: AnyRequest, name: str) -> QueueState:
    """No job of it is started until it is resumed; what runs goes on, and new jobs are accepted."""
    wish = await strict.body(request, Pause, optional=True)
    await _one(request, name)
    async with database(request).transaction() as session:
        await actions.pause_queue(session, name, reason=wish.reason, actor=actor(request))
    return await _one(request, name)


@post(
    "/queues/{name:str}/resume",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.QUEUE, problems=(404,)),
    summary="Resume a queue",
)
async def resume_queue(request: AnyRequest, name: str) -> QueueState:
    """Workers take from it again."""
    await _one(request, name)
    async with database(request).transaction() as session:
        await actions.resume_queue(session, name, actor=actor(request))
    return await _one(request, name)


@patch(
    "/queues/{name:str}",
    guards=[operator],
    operation_class=documented(
        body=QueueLimit, example={"concurrency": 8}, answer=examples.QUEUE, problems=(404,)
    ),
    summary="Limit a queue",
)
async def limit_queue(request: AnyRequest, name: str) -> QueueState:
    """Sets or takes away the limit of what runs at once."""
    wish = await strict.body(request, QueueLimit)
    await _one(request, name)
    async with database(request).transaction() as session:
        await actions.set_queue_limit(session, name, wish.concurrency, actor=actor(request))
    return await _one(request, name)


routes = [list_queues, pause_queue, resume_queue, limit_queue]


async def _one(request: AnyRequest, name: str) -> QueueState:
    async with database(request).read() as connection:
        for state in await _states(connection):
            if state.name == name:
                return state
    raise NotFound(noun="queue", key=name)


async def _states(connection: AsyncConnection) -> list[QueueState]:
    counts = await counters.by_queue(connection)
    controls = {row["name"]: row for row in (await connection.execute(sa.select(Queue.__table__))).mappings()}
    offered = set(await connection.scalars(sa.select(JobCatalogue.queue).distinct()))
    waiting_since = await oldest_waiting(
        connection, [queue for (queue, status), n in counts.items() if status == "queued" and n > 0]
    )
    now = utc_now()
    taken = [set(queues) for queues in await connection.scalars(_LIVE_QUEUES)]
    names = offered | set(controls) | {queue for queue, status in counts if status in LIVE}
    return [
        QueueState(
            name=name,
            paused=control["paused_at"] is not None,
            paused_at=instant(control["paused_at"]),
            paused_by=control["paused_by"],
            pause_reason=control["pause_reason"],
            concurrency=control["concurrency"],
            **{status: counts.get((name, status), 0) for status in LIVE},
            oldest_age_s=max(0.0, (now - waiting_since[name]).total_seconds())
            if name in waiting_since
            else None,
            workers=sum(name in queues or "*" in queues for queues in taken),
        )
        for name in sorted(names)
        for control in [controls.get(name, _NO_CONTROL)]
    ]


_LIVE_QUEUES = sa.select(Worker.queues).where(Worker.ended_at.is_(None), Worker.kind != "clerk")
_NO_CONTROL = dict.fromkeys(("paused_at", "paused_by", "pause_reason", "concurrency"))
