"""/api/v1/webhooks: who outside is told of which events, tried out and tested, and why an event was not delivered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import Request, delete, get, patch, post
from msgspec import UNSET, Struct

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.webhook_log_schema import Told, WebhookLog
from webapp.api.webhook_schema import (
    NewWebhook,
    Webhook,
    WebhookDisable,
    WebhookEdit,
    WebhookPage,
    WebhookQuery,
    WebhookRotate,
    WebhookTest,
    WebhookTrial,
    WebhookTry,
    WebhookWithSecret,
    Why,
    fields_of,
)
from webapp.auth import actor, admin, operator, viewer
from webapp.queries import events as events_queries
from webapp.queries.deliveries import load_deliveries, told_one
from webapp.queries.webhooks import WebhookView, list_webhooks, one_webhook
from worker.errors import Invalid, NotFound
from worker.settings import Settings
from worker.webhooks import actions
from worker.webhooks.checks import WebhookChecks
from worker.webhooks.limits import count_test
from worker.webhooks.trial import try_out
from worker.webhooks.wishes import checked

AnyRequest = Request[Any, Any, Any]


@get(
    "/webhooks",
    guards=[viewer],
    operation_class=documented(query=WebhookQuery, answer={"items": [examples.WEBHOOK], "next_cursor": None}),
    summary="List webhooks",
)
async def list_all(request: AnyRequest) -> WebhookPage:
    """Every webhook by its name, with how its newest deliveries fared."""
    wish = strict.query(request, WebhookQuery)
    async with database(request).read() as connection:
        views, after = await list_webhooks(connection, q=wish.q or "", after=wish.cursor, limit=wish.limit)
    return WebhookPage([Webhook.of(view, whole=_whole(request)) for view in views], after)


@post(
    "/webhooks",
    guards=[admin],
    operation_class=documented(
        body=NewWebhook, example=examples.NEW_WEBHOOK, answer=examples.WEBHOOK_SECRET, problems=(503,)
    ),
    summary="Make a webhook",
)
async def create(request: AnyRequest) -> WebhookWithSecret:
    """It is told of what happens from now on. The answer has its signing secret, which is not shown again."""
    wish = await checked(_given(await strict.body(request, NewWebhook)), checks(request))
    async with database(request).transaction() as session:
        made, secret = await actions.create(session, wish, actor=actor(request))
    return WebhookWithSecret(secret=secret, **fields_of(await _stored(request, made.id), whole=True))


@post(
    "/webhooks/try",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=WebhookTry,
        example={
            "event": "job.failed",
            "condition": "data.queue == 'mail'",
            "event_id": examples.EVENT["event_id"],
        },
        answer=examples.WEBHOOK_TRIAL,
        problems=(404, 503),
    ),
    summary="Try a webhook on an event",
)
async def dry_run(request: AnyRequest) -> WebhookTrial:
    """Which part would decide, the exact body, and where it would go. Nothing is sent or stored."""
    given = _given(await strict.body(request, WebhookTry))
    event = await _event(request, given.pop("event_id", None), given.pop("sample", None))
    wish: dict[str, Any] = {}
    if (of := given.pop("webhook_id", None)) is not None:
        view = await _stored(request, _uuid(of))
        names = ("name", "event", "doctype_filter", "condition", "payload_template", "url")
        wish = {name: getattr(view, name) for name in names}
    wish |= given
    await checked(
        {name: value for name, value in wish.items() if name != "url"}, checks(request), whole=False
    )
    made = await try_out(checks(request), wish, event, desk_url=_settings(request).base_url)
    why = Why(made.why.reason, made.why.detail) if made.why else None
    return WebhookTrial(
        made.delivers,
        why,
        made.condition_value,
        made.condition_error,
        made.body,
        made.body_error,
        list(made.addresses),
        made.refused,
    )


@get(
    "/webhooks/{webhook_id:uuid}",
    guards=[viewer],
    operation_class=documented(answer=examples.WEBHOOK, problems=(404,)),
    summary="Read a webhook",
)
async def read(request: AnyRequest, webhook_id: UUID) -> Webhook:
    """One webhook."""
    return await _one(request, webhook_id)


@patch(
    "/webhooks/{webhook_id:uuid}",
    guards=[admin],
    operation_class=documented(
        body=WebhookEdit,
        example={"event": "job.>", "version": 1},
        answer=examples.WEBHOOK,
        problems=(404, 409, 503),
    ),
    summary="Change a webhook",
)
async def change(request: AnyRequest, webhook_id: UUID) -> Webhook:
    """Changes the fields that are given. Secret headers that come masked stay as they are."""
    given = _given(await strict.body(request, WebhookEdit))
    version = given.pop("version", None)
    wish = await checked(given, checks(request), whole=False)
    async with database(request).transaction() as session:
        await actions.edit(session, webhook_id, wish, version=version, actor=actor(request))
    return await _one(request, webhook_id)


@delete(
    "/webhooks/{webhook_id:uuid}",
    guards=[admin],
    operation_class=documented(answer=None, problems=(404,)),
    summary="Delete a webhook",
)
async def remove(request: AnyRequest, webhook_id: UUID) -> None:
    """Its deliveries stay to be read."""
    async with database(request).transaction() as session:
        await actions.delete(session, webhook_id, actor=actor(request))


@post(
    "/webhooks/{webhook_id:uuid}/enable",
    guards=[admin],
    status_code=200,
    operation_class=documented(answer=examples.WEBHOOK, problems=(404,)),
    summary="Switch a webhook on",
)
async def enable(request: AnyRequest, webhook_id: UUID) -> Webhook:
    """It is told of what happens from now on, and what waited for it is sent."""
    async with database(request).transaction() as session:
        await actions.enable(session, webhook_id, actor=actor(request))
    return await _one(request, webhook_id)


@post(
    "/webhooks/{webhook_id:uuid}/disable",
    guards=[admin],
    status_code=200,
    operation_class=documented(
        body=WebhookDisable,
        example={"reason": "moving house"},
        optional_body=True,
        answer=examples.WEBHOOK,
        problems=(404,),
    ),
    summary="Switch a webhook off",
)
async def disable(request: AnyRequest, webhook_id: UUID) -> Webhook:
    """Events do not match it any more; what waits for it waits on."""
    wish = await strict.body(request, WebhookDisable, optional=True)
    async with database(request).transaction() as session:
        await actions.disable(session, webhook_id, reason=wish.reason, actor=actor(request))
    return await _one(request, webhook_id)


@post(
    "/webhooks/{webhook_id:uuid}/rotate",
    guards=[admin],
    status_code=200,
    operation_class=documented(
        body=WebhookRotate,
        example={"overlap_hours": 24},
        optional_body=True,
        answer=examples.WEBHOOK_SECRET,
        problems=(404,),
    ),
    summary="Give a webhook a new secret",
)
async def rotate(request: AnyRequest, webhook_id: UUID) -> WebhookWithSecret:
    """Both secrets sign for the time of the overlap. The answer has the new one, which is not shown again."""
    wish = await strict.body(request, WebhookRotate, optional=True)
    async with database(request).transaction() as session:
        _, secret = await actions.rotate(
            session,
            webhook_id,
            overlap=timedelta(hours=wish.overlap_hours),
            secret=None if wish.secret is UNSET else wish.secret,
            actor=actor(request),
        )
    return WebhookWithSecret(secret=secret, **fields_of(await _stored(request, webhook_id), whole=True))


@post(
    "/webhooks/{webhook_id:uuid}/test",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=WebhookTest, example={}, optional_body=True, answer=examples.WEBHOOK_LOG, problems=(404, 429)
    ),
    summary="Send a test",
)
async def test(request: AnyRequest, webhook_id: UUID) -> WebhookLog:
    """One request, at once and once, whatever the webhook wants and also while it is off. At most five a minute."""
    wish = await strict.body(request, WebhookTest, optional=True)
    event = None if wish.event_id is UNSET else await _event(request, wish.event_id, None)
    async with database(request).transaction() as session:
        await count_test(session, webhook_id)
        log = await actions.send_test(session, webhook_id, event=event, actor=actor(request))
    async with database(request).read() as connection:
        view = (await load_deliveries(connection, [log.id]))[log.id]
    return WebhookLog.of(view)


@get(
    "/webhooks/{webhook_id:uuid}/events/{event_id:str}",
    guards=[viewer],
    operation_class=documented(
        answer={"delivered": False, "why": examples.WEBHOOK_TRIAL["why"], "log": None}, problems=(404,)
    ),
    summary="Ask why an event was not delivered",
)
async def why(request: AnyRequest, webhook_id: UUID, event_id: str) -> Told:
    """The delivery of an event to a webhook, or the part that kept it back and the value that decided."""
    event = await _event(request, event_id, None)
    async with database(request).read() as connection:
        told = await told_one(connection, event, webhook_id)
    if told is None:
        raise NotFound(noun="webhook", key=str(webhook_id))
    reason = Why(told.why.reason, told.why.detail) if told.why else None
    return Told(told.delivery is not None, reason, WebhookLog.of(told.delivery) if told.delivery else None)


routes = [
    list_all, create, dry_run, read, change, remove, enable, disable, rotate, test, why,
]  # fmt: skip


def checks(request: AnyRequest) -> WebhookChecks:
    found: WebhookChecks = request.app.state.webhook_checks
    return found


async def _event(request: AnyRequest, event_id: str | None, sample: dict[str, Any] | None) -> dict[str, Any]:
    """The past event of this id, or the one that was given."""
    if (event_id is None) == (sample is None):
        raise Invalid({"event_id": f"must be {_EITHER}"})
    if sample is not None:
        example = {
            "event_id": "sample",
            "event_type": "sample",
            "timestamp": "2026-01-01T00:00:00.000Z",
            "user_id": None,
        }
        return {**example, "data": {}, **sample}
    assert event_id is not None
    async with database(request).read() as connection:
        view = await events_queries.one(connection, event_id, request.user.role)
    if view is None:
        raise NotFound(noun="event", key=event_id[:80])
    return view.whole


_EITHER = "the id of an event that is still kept, unless `sample` gives one; not both"


async def _one(request: AnyRequest, webhook_id: UUID) -> Webhook:
    return Webhook.of(await _stored(request, webhook_id), whole=_whole(request))


async def _stored(request: AnyRequest, webhook_id: UUID) -> WebhookView:
    async with database(request).read() as connection:
        view = await one_webhook(connection, webhook_id)
    if view is None:
        raise NotFound(noun="webhook", key=str(webhook_id))
    return view


def _whole(request: AnyRequest) -> bool:
    return actor(request).at_least("admin")


def _settings(request: AnyRequest) -> Settings:
    found: Settings = request.app.state.engine.settings
    return found


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(noun="webhook", key=text[:80]) from None


def _given(wish: Struct) -> dict[str, Any]:
    found = {name: getattr(wish, name) for name in wish.__struct_fields__}
    return {name: value for name, value in found.items() if value is not UNSET}
