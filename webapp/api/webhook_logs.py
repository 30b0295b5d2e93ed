"""/api/v1/webhook-logs: every delivery with its attempts; one sent again, or all that a filter means as a planned batch."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, get, post
from msgspec import UNSET

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import exact
from webapp.api.webhook_log_schema import (
    OneWebhooksQuery,
    Replay,
    ReplayPlan,
    ReplayWish,
    WebhookLog,
    WebhookLogPage,
    WebhookLogQuery,
    WholeWebhookLog,
)
from webapp.auth import actor, operator, viewer
from webapp.queries.deliveries import list_deliveries, load_replays, one_delivery
from webapp.queries.paging import Cursor
from webapp.queries.webhooks import one_webhook
from worker.db.base import utc_now
from worker.errors import NotFound
from worker.webhooks import filters, replays

AnyRequest = Request[Any, Any, Any]

FILTER = tuple(name for name in filters.FIELDS if name in ReplayWish.__struct_fields__)


@get(
    "/webhook-logs",
    guards=[viewer],
    operation_class=documented(
        query=WebhookLogQuery, answer={"items": [examples.WEBHOOK_LOG], "next_cursor": None}
    ),
    summary="List deliveries",
)
async def list_all(request: AnyRequest) -> WebhookLogPage:
    """Newest first, of all webhooks or of one."""
    wish = strict.query(request, WebhookLogQuery)
    wanted = {name: getattr(wish, name) for name in wish.__struct_fields__ if name not in ("limit", "cursor")}
    return await _page(request, wanted, wish.cursor, wish.limit)


@get(
    "/webhooks/{webhook_id:uuid}/logs",
    guards=[viewer],
    operation_class=documented(
        query=OneWebhooksQuery, answer={"items": [examples.WEBHOOK_LOG], "next_cursor": None}, problems=(404,)
    ),
    summary="List a webhook's deliveries",
)
async def list_of_one(request: AnyRequest, webhook_id: UUID) -> WebhookLogPage:
    """Newest first."""
    wish = strict.query(request, OneWebhooksQuery)
    async with database(request).read() as connection:
        if await one_webhook(connection, webhook_id) is None:
            raise NotFound(noun="webhook", key=str(webhook_id))
    wanted = {"webhook_id": str(webhook_id), "status": wish.status}
    return await _page(request, wanted, wish.cursor, wish.limit)


async def _page(
    request: AnyRequest, wanted: dict[str, Any], cursor: str | None, limit: int
) -> WebhookLogPage:
    found = filters.checked(wanted)
    async with database(request).read() as connection:
        page = await list_deliveries(
            connection,
            found,
            request.user.role,
            cursor=Cursor.parse(cursor) if cursor else None,
            limit=limit,
        )
    return WebhookLogPage([WebhookLog.of(view) for view in page.items], page.next)


@get(
    "/webhook-logs/{log_id:uuid}",
    guards=[viewer],
    operation_class=documented(
        answer={
            **examples.WEBHOOK_LOG,
            "payload": examples.WEBHOOK_TRIAL["body"],
            "payload_hash": "9f" * 32,
            "data": {"event_type": "job.failed", "data": {"queue": "mail"}},
            "tried": [examples.WEBHOOK_ATTEMPT],
        },
        problems=(404,),
    ),
    summary="Read a delivery",
)
async def read(request: AnyRequest, log_id: UUID) -> WholeWebhookLog:
    """The event, the exact body, and every request with what came back."""
    async with database(request).read() as connection:
        found = await one_delivery(connection, log_id, request.user.role)
    if found is None:
        raise NotFound(noun="delivery", key=str(log_id))
    return WholeWebhookLog.whole(found, admin=actor(request).at_least("admin"))


@post(
    "/webhook-logs/{log_id:uuid}/replay",
    guards=[operator],
    status_code=202,
    operation_class=documented(answer=examples.WEBHOOK_LOG, problems=(404, 409)),
    summary="Send a delivery again",
)
async def replay_one(request: AnyRequest, log_id: UUID) -> WebhookLog:
    """The same `webhook-id`, rendered anew and signed now."""
    async with database(request).transaction() as session:
        await replays.replay(session, log_id, actor=actor(request))
    async with database(request).read() as connection:
        found = await one_delivery(connection, log_id, request.user.role)
    if found is None:
        raise NotFound(noun="delivery", key=str(log_id))
    return WebhookLog.of(found.view)


@post(
    "/webhook-logs/replay",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=ReplayWish,
        example={"webhook_id": examples.WEBHOOK["webhook_id"], "status": "failed", "dry_run": True},
        answer={
            "matching": 120,
            "later": 3,
            "takes_s": 12.0,
            "cutoff": "2026-11-22T10:00:00.000000Z",
            "replay": None,
        },
    ),
    summary="Send all that a filter means again",
)
async def replay_many(request: AnyRequest) -> ReplayPlan:
    """A planned batch at a rate, which can be stopped. Look first with `dry_run`, and give its cutoff back."""
    wish = await strict.body(request, ReplayWish)
    until = utc_now() if wish.cutoff is UNSET else wish.cutoff
    rate, wanted = wish.rate_per_s, {name: getattr(wish, name) for name in FILTER}
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not UNSET}
    async with database(request).read() as connection:
        seen = await replays.preview(connection, given, rate_per_s=rate, cutoff=until)
    started = None
    if not wish.dry_run:
        async with database(request).transaction() as session:
            batch = await replays.start(session, given, rate_per_s=rate, cutoff=until, actor=actor(request))
        started = await _replay(request, batch.id)
    return ReplayPlan(seen.matching, seen.later, seen.takes_s, exact(seen.cutoff), started)


@get(
    "/webhook-replays/{replay_id:uuid}",
    guards=[viewer],
    operation_class=documented(answer=examples.WEBHOOK_REPLAY, problems=(404,)),
    summary="Read a planned replay",
)
async def read_replay(request: AnyRequest, replay_id: UUID) -> Replay:
    """How far it has come."""
    return await _replay(request, replay_id)


@post(
    "/webhook-replays/{replay_id:uuid}/stop",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.WEBHOOK_REPLAY, problems=(404, 409)),
    summary="Stop a planned replay",
)
async def stop_replay(request: AnyRequest, replay_id: UUID) -> Replay:
    """Before its next step; what was sent stays sent."""
    async with database(request).transaction() as session:
        await replays.stop(session, replay_id, actor=actor(request))
    return await _replay(request, replay_id)


routes = [list_all, list_of_one, read, replay_one, replay_many, read_replay, stop_replay]


async def _replay(request: AnyRequest, replay_id: UUID) -> Replay:
    async with database(request).read() as connection:
        found = await load_replays(connection, [replay_id])
    if replay_id not in found:
        raise NotFound(noun="replay", key=str(replay_id))
    return Replay.of(found[replay_id])
