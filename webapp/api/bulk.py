"""/api/v1/jobs/bulk: one action on every job that a filter finds, looked at first and carried out in the background."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from litestar import Request, Response, get, post
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import ARGS, QUEUE, RUN_AT, STATUS, Instant, Key, QueueName, When, exact, instant
from webapp.auth import actor, operator, viewer
from worker.db.base import utc_now
from worker.errors import Invalid, NotFound
from worker.joblogs import bulk
from worker.joblogs.models import JobLog, Operation
from worker.joblogs.search import Token
from worker.joblogs.states import Status

AnyRequest = Request[Any, Any, Any]
Action = Literal["retry", "cancel", "delete", "resolve", "rerun"]

IDS = "a list of at most 1000 job ids"


class BulkFilter(Struct):
    """Which jobs: those that fit everything that is given."""

    ids: Annotated[list[UUID], Meta(max_length=bulk.IDS_CAP), Meta(description=IDS)] = []
    status: Annotated[list[Status], Meta(description=f"a list: {STATUS}")] = []
    job_name: Annotated[Key | None, Meta(description="the name of a job")] = None
    queue: Annotated[QueueName | None, Meta(description=QUEUE)] = None
    q: Annotated[str | None, Meta(description="a search as in the job list")] = None


class BulkRequest(Struct):
    """What to do with which jobs. Jobs enqueued after `cutoff` (default: now) are left alone."""

    action: Annotated[Action, Meta(description="retry, cancel, delete, resolve or rerun")]
    filter: Annotated[BulkFilter, Meta(description="an object with ids, status, job_name, queue or q")]
    args: Annotated[
        dict[str, Any] | None, Meta(description=f"{ARGS} that a rerun replaces in every job, or null")
    ] = None
    cutoff: Annotated[When | None, Meta(description=RUN_AT)] = None
    dry_run: Annotated[bool, Meta(description="true (only count) or false")] = False


class Preview(Struct):
    """What would happen. Counts stop at 10,001."""

    action: Action
    matching: int
    will: Annotated[int, Meta(description="matching jobs that stand so that the action can be done")]
    later: Annotated[int, Meta(description="matching jobs that came after the cutoff")]
    cutoff: Instant


class BulkOperation(Struct):
    """A bulk action under way, or what became of it."""

    operation_id: str
    action: str
    filter: dict[str, Any]
    cutoff: Instant
    status: str
    total: int
    done: int
    refused: int
    refusals: Annotated[list[Any], Meta(description="the first jobs that refused, and why")]
    user: str | None
    created_at: Instant
    ended_at: Instant | None


@post(
    "/jobs/bulk",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=BulkRequest,
        example={"action": "retry", "filter": {"status": ["failed"], "job_name": "send_email"}},
        answer=examples.OPERATION,
        also={200: "With `dry_run`: how many jobs it would be"},
    ),
    summary="Act on many jobs",
)
async def start_bulk(request: AnyRequest) -> Response[BulkOperation | Preview]:
    """Starts a bulk action, or with `dry_run` counts what it would do. An id that is not a job's refuses the whole."""
    wish = await strict.body(request, BulkRequest)
    wanted: dict[str, Any] = {"q": _search(wish.filter), "ids": [str(job_id) for job_id in wish.filter.ids]}
    if wish.args is not None:
        if wish.action != bulk.RERUN:
            raise Invalid({"args": f"means nothing to {wish.action}: only a rerun replaces arguments"})
        wanted["args"] = wish.args
    async with database(request).read() as connection:
        await _refuse_unknown(connection, wish.filter.ids)
        if wish.dry_run:
            if wish.action == bulk.RERUN:
                async with database(request).session() as session:
                    await bulk.check_rerun(session, wanted)
            found = await bulk.preview(
                connection, database(request).dialect, wish.action, wanted, wish.cutoff or utc_now()
            )
            return Response(preview_of(found), status_code=200)
    async with database(request).transaction() as session:
        operation = await bulk.start(session, wish.action, wanted, cutoff=wish.cutoff, actor=actor(request))
        return Response(operation_of(operation), status_code=202)


@get(
    "/jobs/bulk/{operation_id:uuid}",
    guards=[viewer],
    operation_class=documented(answer=examples.OPERATION, problems=(404,)),
    summary="Follow a bulk action",
)
async def read_bulk(request: AnyRequest, operation_id: UUID) -> BulkOperation:
    """How far it is, and which jobs refused."""
    async with database(request).read() as connection:
        row = (
            await connection.execute(sa.select(Operation.__table__).where(Operation.id == operation_id))
        ).first()
    if row is None:
        raise NotFound(noun="operation", key=str(operation_id))
    return operation_of(row)


@post(
    "/jobs/bulk/{operation_id:uuid}/stop",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.OPERATION, problems=(404, 409)),
    summary="Stop a bulk action",
)
async def stop_bulk(request: AnyRequest, operation_id: UUID) -> BulkOperation:
    """Ends it after the batch under way; what is done stays done."""
    async with database(request).transaction() as session:
        return operation_of(await bulk.stop(session, operation_id, actor=actor(request)))


routes = [start_bulk, read_bulk, stop_bulk]


def _search(wanted: BulkFilter) -> str:
    """The filter in the search language, which is how an operation keeps it."""
    tokens = [Token("status", ",".join(wanted.status))] if wanted.status else []
    tokens += [Token("job", wanted.job_name)] if wanted.job_name else []
    tokens += [Token("queue", wanted.queue)] if wanted.queue else []
    return " ".join([*map(str, tokens), *([wanted.q] if wanted.q else [])])


async def _refuse_unknown(connection: AsyncConnection, ids: list[UUID]) -> None:
    if not ids:
        return
    here = sa.select(JobLog.id).where(JobLog.id.in_(ids), JobLog.deleted_at.is_(None))
    missing = sorted(set(ids) - set(await connection.scalars(here)))
    if missing:
        raise Invalid({"filter.ids": f"{missing[0]} is not a job here; nothing was changed"})


def preview_of(found: bulk.Preview) -> Preview:
    return Preview(found.action, found.matching, found.will, found.later, exact(found.cutoff))  # type: ignore[arg-type]  # one of ours


def operation_of(row: Any) -> BulkOperation:
    return BulkOperation(
        operation_id=str(row.id),
        action=row.action,
        filter=row.filter,
        cutoff=exact(row.cutoff),
        status=row.status,
        total=row.total,
        done=row.done,
        refused=row.refused,
        refusals=row.refusals,
        user=row.user_id,
        created_at=exact(row.created_at),
        ended_at=instant(row.ended_at),
    )
