"""/api/v1/dead-letters: failures that nobody has dealt with, by their cause."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from msgspec import Meta, Struct

from webapp.api import examples, strict
from webapp.api.bulk import BulkOperation, Preview, operation_of, preview_of
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import ARGS, LIMIT, Instant, Limit, Reason, When, exact, instant
from webapp.auth import actor, operator, viewer
from worker.db.base import utc_now
from worker.errors import NotFound
from worker.joblogs import bulk
from worker.joblogs.dead_letters import FailureGroup, failure_groups, one_group

AnyRequest = Request[Any, Any, Any]
DRY_RUN = "true (only count) or false"
REASON = "a text of at most 500 characters"


class Group(Struct):
    """Failed jobs of one cause. What is said of one job is said of the newest."""

    fingerprint: str
    job_name: str
    queue: str
    error: Annotated[str, Meta(description="the first line")]
    count: int
    first_at: Instant
    last_at: Instant
    last_job_id: str
    resolved_at: Annotated[
        Instant | None, Meta(description="when this cause was resolved before: it has come back")
    ]


class Groups(Struct):
    items: list[Group]
    next_cursor: Annotated[str | None, Meta(description="`before` of the next page")]


class GroupsWanted(Struct):
    """Which page of the groups."""

    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    before: Annotated[When | None, Meta(description="the `next_cursor` of the page before")] = None


class RetryGroup(Struct):
    """How to retry a group: as it is, or as new jobs with some arguments replaced."""

    args: Annotated[
        dict[str, Any] | None, Meta(description=f"{ARGS} that are replaced in every job, or null")
    ] = None
    reason: Annotated[Reason, Meta(description=REASON)] = ""
    dry_run: Annotated[bool, Meta(description=DRY_RUN)] = False


class ResolveGroup(Struct):
    """Why a group is dealt with."""

    reason: Annotated[Reason, Meta(description=REASON)] = ""
    dry_run: Annotated[bool, Meta(description=DRY_RUN)] = False


@get(
    "/dead-letters",
    guards=[viewer],
    operation_class=documented(query=GroupsWanted, answer={"items": [examples.GROUP], "next_cursor": None}),
    summary="List failures by cause",
)
async def list_groups(request: AnyRequest) -> Groups:
    """Unresolved failures in groups of one cause, the last one first."""
    wanted = strict.query(request, GroupsWanted)
    async with database(request).read() as connection:
        found = await failure_groups(connection, wanted.limit + 1, wanted.before)
    items = [_shown(group) for group in found[: wanted.limit]]
    return Groups(items, items[-1].last_at if len(found) > wanted.limit else None)


@get(
    "/dead-letters/{fingerprint:str}",
    guards=[viewer],
    operation_class=documented(answer=examples.GROUP, problems=(404,)),
    summary="Read one group of failures",
)
async def read_group(request: AnyRequest, fingerprint: str) -> Group:
    """One group; its jobs are `GET /jobs?q=group:<fingerprint> is:unresolved`."""
    return _shown(await _one(request, fingerprint))


@post(
    "/dead-letters/{fingerprint:str}/retry",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=RetryGroup,
        example={"reason": "the mail server is back"},
        optional_body=True,
        answer=examples.OPERATION,
        problems=(404,),
        also={200: "With `dry_run`: how many jobs it would be"},
    ),
    summary="Retry a group of failures",
)
async def retry_group(request: AnyRequest, fingerprint: str) -> Response[BulkOperation | Preview]:
    """Queues all of it again in the background; with `args` a new job runs for each and the failed one is resolved."""
    wish = await strict.body(request, RetryGroup, optional=True)
    if wish.args:
        return await _start(request, fingerprint, bulk.RERUN, wish, {"args": wish.args})
    return await _start(request, fingerprint, "retry", wish, {})


@post(
    "/dead-letters/{fingerprint:str}/resolve",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=ResolveGroup,
        example={"reason": "fixed in 2.4.1"},
        optional_body=True,
        answer=examples.OPERATION,
        problems=(404,),
        also={200: "With `dry_run`: how many jobs it would be"},
    ),
    summary="Resolve a group of failures",
)
async def resolve_group(request: AnyRequest, fingerprint: str) -> Response[BulkOperation | Preview]:
    """Marks all of it as dealt with, in the background. A new failure of this cause is a dead letter again."""
    wish = await strict.body(request, ResolveGroup, optional=True)
    return await _start(request, fingerprint, "resolve", wish, {})


routes = [list_groups, read_group, retry_group, resolve_group]


async def _start(
    request: AnyRequest, fingerprint: str, action: str, wish: RetryGroup | ResolveGroup, more: dict[str, Any]
) -> Response[BulkOperation | Preview]:
    group = await _one(request, fingerprint)
    wanted = {"q": group.query, **more}
    db = database(request)
    if wish.dry_run:
        if action == bulk.RERUN:
            async with db.session() as session:
                await bulk.check_rerun(session, wanted)
        async with db.read() as connection:
            found = await bulk.preview(connection, db.dialect, action, wanted, utc_now())
        return Response(preview_of(found), status_code=200)
    async with db.transaction() as session:
        operation = await bulk.start(session, action, wanted, reason=wish.reason, actor=actor(request))
        return Response(operation_of(operation), status_code=202)


async def _one(request: AnyRequest, fingerprint: str) -> FailureGroup:
    async with database(request).read() as connection:
        found = await one_group(connection, fingerprint)
    if found is None:
        raise NotFound(noun="group of unresolved failures", key=fingerprint[:80])
    return found


def _shown(group: FailureGroup) -> Group:
    return Group(
        fingerprint=group.fingerprint,
        job_name=group.job_name,
        queue=group.queue,
        error=group.error,
        count=group.count,
        first_at=exact(group.first_at),
        last_at=exact(group.last_at),
        last_job_id=str(group.last_job_id),
        resolved_at=instant(group.resolved_at),
    )
