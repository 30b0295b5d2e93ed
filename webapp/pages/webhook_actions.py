"""What is done with webhooks from the desk: switch, test, rotate, delete and bring back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.auth import actor, admin, operator
from webapp.forms import Form, read_form
from webapp.pages import webhook_form
from webapp.pages.after import came_from
from webapp.pages.shared import Answer, AnyRequest, acting, database, gone
from webapp.pages.webhooks import show_page
from webapp.queries import events as events_queries
from webapp.queries.webhooks import one_webhook
from worker.errors import DeskError, Invalid, NotFound
from worker.webhooks import actions
from worker.webhooks.limits import count_test
from worker.webhooks.secrets import OVERLAP

OVERLAPS = (
    ("24", "24 hours"),
    ("0", "none: the old one ends now"),
    ("1", "an hour"),
    ("72", "3 days"),
    ("168", "7 days"),
)


@post("/webhooks/{webhook_id:uuid}/enable", guards=[admin])
async def enable(request: AnyRequest, webhook_id: UUID) -> Answer:
    return await _do(request, webhook_id, actions.enable, "Switched on.", undo="disable")


@post("/webhooks/{webhook_id:uuid}/disable", guards=[admin])
async def disable(request: AnyRequest, webhook_id: UUID) -> Answer:
    return await _do(request, webhook_id, actions.disable, "Switched off.", undo="enable")


@post("/webhooks/{webhook_id:uuid}/test", guards=[operator])
async def test(request: AnyRequest, webhook_id: UUID) -> Answer:
    """Sends the event that the form names, else the newest one that the webhook's pattern means, else an example."""
    form = await read_form(request)
    event_id = form.words("event_id")
    try:
        event = await _event(request, event_id) if event_id else await _newest(request, webhook_id)
        async with acting(request) as session:
            await count_test(session, webhook_id)
            log = await actions.send_test(session, webhook_id, event=event, actor=actor(request))
    except NotFound as error:
        if error.facts.get("noun") == "webhook":
            return gone(request, "webhook", "/webhooks")
        return render.redirect(request, f"/webhooks/{webhook_id}", error.message, "error")
    except DeskError as error:
        return render.redirect(request, came_from(request, f"/webhooks/{webhook_id}"), error.message, "error")
    return render.redirect(request, f"/webhook-logs/{log.id}", "The test is on its way.")


@get("/webhooks/{webhook_id:uuid}/rotate", guards=[admin])
async def rotate_form(request: AnyRequest, webhook_id: UUID) -> Answer:
    return await _rotate_page(request, webhook_id)


@post("/webhooks/{webhook_id:uuid}/rotate", guards=[admin])
async def rotate(request: AnyRequest, webhook_id: UUID) -> Answer:
    form = await read_form(request)
    hours = form.choice("overlap_hours", [hours for hours, _ in OVERLAPS], str(OVERLAP // timedelta(hours=1)))
    try:
        form.check()
        async with acting(request) as session:
            _, secret = await actions.rotate(
                session,
                webhook_id,
                overlap=timedelta(hours=int(hours)),
                secret=form.words("secret") or None,
                actor=actor(request),
            )
    except Invalid as error:
        return await _rotate_page(request, webhook_id, form, error.problems)
    except NotFound:
        return gone(request, "webhook", "/webhooks")
    return await show_page(request, webhook_id, secret)


@post("/webhooks/{webhook_id:uuid}/delete", guards=[admin])
async def delete(request: AnyRequest, webhook_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            gone_now = await actions.delete(session, webhook_id, actor=actor(request))
    except NotFound:
        return gone(request, "webhook", "/webhooks")
    return render.redirect(
        request, "/webhooks", f"Deleted {gone_now.name}.", undo_url=f"/webhooks/{webhook_id}/restore"
    )


@post("/webhooks/{webhook_id:uuid}/restore", guards=[admin])
async def restore(request: AnyRequest, webhook_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            back = await actions.restore(session, webhook_id, actor=actor(request))
    except NotFound:
        return gone(request, "webhook", "/webhooks")
    return render.redirect(request, f"/webhooks/{webhook_id}", f"{back.name} is back.")


routes = [enable, disable, test, rotate_form, rotate, delete, restore]


async def _event(request: AnyRequest, event_id: str) -> dict[str, Any]:
    async with database(request).read() as connection:
        found = await events_queries.one(connection, event_id, request.user.role)
    if found is None:
        raise NotFound(noun="event", key=event_id[:80])
    return found.whole


async def _newest(request: AnyRequest, webhook_id: UUID) -> dict[str, Any] | None:
    """A real event fits its template better than an example."""
    async with database(request).read() as connection:
        view = await one_webhook(connection, webhook_id)
        if view is None:
            return None
        found = await events_queries.newest(connection, view.event, request.user.role, limit=1)
    return next((event.whole for event in found.items), None)


async def _do(
    request: AnyRequest, webhook_id: UUID, action: Callable[..., Awaitable[Any]], said: str, undo: str
) -> Answer:
    """Acts, and shows the webhook as it stands now."""
    kind, undo_url = "ok", f"/webhooks/{webhook_id}/{undo}"
    try:
        async with acting(request) as session:
            await action(session, webhook_id, actor=actor(request))
    except NotFound:
        return gone(request, "webhook", "/webhooks")
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, f"/webhooks/{webhook_id}"), said, kind, undo_url)
    async with database(request).read() as connection:
        view = await one_webhook(connection, webhook_id)
    if view is None:
        return gone(request, "webhook", "/webhooks")
    return render.fragment(
        request,
        "webhooks/_after.html",
        flash=said,
        kind=kind,
        undo_url=undo_url,
        webhook=view,
        rev=view.shown_rev,
    )


async def _rotate_page(
    request: AnyRequest, webhook_id: UUID, form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    async with database(request).read() as connection:
        view = await one_webhook(connection, webhook_id)
    if view is None:
        return gone(request, "webhook", "/webhooks")
    problems = problems or {}
    return render.page(
        request,
        "webhooks/rotate.html",
        title="New secret",
        nav="webhooks",
        status=422 if problems else 200,
        webhook=view,
        overlaps=OVERLAPS,
        overlap=form.words("overlap_hours") if form else "24",
        problems=problems,
        errors=webhook_form.errors_of(problems),
    )
