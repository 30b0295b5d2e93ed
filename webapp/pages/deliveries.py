"""Deliveries of webhooks: the list by filter, one with its attempts, one sent again, many sent again as a planned batch."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.arguments import json_text
from webapp.auth import actor, operator, viewer
from webapp.forms import Form, read_form
from webapp.pages import webhook_form
from webapp.pages.after import came_from
from webapp.pages.schedule_form import moment
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, gone
from webapp.queries.deliveries import (
    DeliveryView,
    WholeDelivery,
    list_deliveries,
    load_replays,
    one_delivery,
)
from webapp.queries.paging import Cursor
from webapp.queries.webhooks import webhook_names
from worker.db.base import utc_now
from worker.errors import DeskError, Invalid, NotFound, ReplayEnded
from worker.webhooks import filters, replays

FILTERS = ("webhook_id", "status", "event", "response_code", "error_class", "after", "before")
STATUSES = (("", "all"), *((status, status.capitalize()) for status in filters.STATUSES))
RATES = (("1", "1 a second"), ("10", "10 a second"), ("50", "50 a second"), ("100", "100 a second"))


@get("/webhook-logs", guards=[viewer])
async def deliveries(request: AnyRequest) -> Answer:
    form = Form(list(request.query_params.multi_items()))
    typed = {name: form.words(name) for name in FILTERS}
    wanted, problems = _filter(form)
    before = request.query_params.get("cursor")
    async with database(request).read() as connection:
        page = await list_deliveries(
            connection, wanted, request.user.role, cursor=Cursor.parse(before) if before else None
        )
        names = await webhook_names(connection)
    pairs = list(typed.items())
    return render.page(
        request,
        "webhooks/deliveries.html",
        title="Deliveries",
        nav="webhooks",
        status=422 if problems else 200,
        deliveries=page.items,
        typed=typed,
        problems=problems,
        errors=webhook_form.errors_of(problems),
        webhooks=[("", "all"), *((str(of), name) for of, name in names)],
        statuses=STATUSES,
        first_href=address("/webhook-logs", pairs) if before else None,
        older_href=address("/webhook-logs", [*pairs, ("cursor", page.next)]) if page.next else None,
        replay_href=address("/webhook-logs/replay", pairs) if wanted else None,
    )


@get("/webhook-logs/{log_id:uuid}", guards=[viewer])
async def show(request: AnyRequest, log_id: UUID) -> Answer:
    async with database(request).read() as connection:
        found = await one_delivery(connection, log_id, request.user.role)
    if found is None:
        return gone(request, "delivery", "/webhook-logs")
    return render.page(
        request,
        "webhooks/delivery.html",
        title=f"{found.view.event_type} to {found.view.webhook_name}",
        nav="webhooks",
        **delivery_context(found),
        event_text=json_text(found.event),
    )


def delivery_context(found: WholeDelivery) -> dict[str, Any]:
    """What the template of a delivery and its live fragment need."""
    return {"delivery": found.view, "whole": found, "attempts": found.attempts, "rev": found.view.rev}


@post("/webhook-logs/{log_id:uuid}/replay", guards=[operator])
async def replay_one(request: AnyRequest, log_id: UUID) -> Answer:
    said, kind = "It is sent again.", "ok"
    try:
        async with acting(request) as session:
            await replays.replay(session, log_id, actor=actor(request))
    except NotFound as error:
        if error.facts.get("noun") == "delivery":
            return gone(request, "delivery", "/webhook-logs")
        said, kind = error.message, "error"
    except DeskError as error:
        said, kind = error.message, "error"
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, f"/webhook-logs/{log_id}"), said, kind)
    async with database(request).read() as connection:
        found = await one_delivery(connection, log_id, request.user.role)
    if found is None:
        return gone(request, "delivery", "/webhook-logs")
    return render.fragment(
        request, "webhooks/_delivery_after.html", flash=said, kind=kind, **delivery_context(found)
    )


# Many at once


@get("/webhook-logs/replay", guards=[operator])
async def replay_form(request: AnyRequest) -> Answer:
    return await _plan_page(request, Form(list(request.query_params.multi_items())))


@post("/webhook-logs/replay", guards=[operator])
async def replay_many(request: AnyRequest) -> Answer:
    form = await read_form(request)
    wanted, problems = _filter(form)
    rate = form.choice("rate", [rate for rate, _ in RATES], "10")
    cutoff = moment(form, "cutoff", problems)
    problems |= form.problems
    if problems:
        return await _plan_page(request, form, problems)
    try:
        async with acting(request) as session:
            batch = await replays.start(
                session, wanted, rate_per_s=float(rate), cutoff=cutoff, actor=actor(request)
            )
    except Invalid as error:
        return await _plan_page(request, form, error.problems)
    return render.redirect(request, f"/webhook-replays/{batch.id}", "Planned: a clerk begins at once.")


@get("/webhook-replays/{replay_id:uuid}", guards=[viewer])
async def show_replay(request: AnyRequest, replay_id: UUID) -> Answer:
    async with database(request).read() as connection:
        found = (await load_replays(connection, [replay_id])).get(replay_id)
    if found is None:
        return gone(request, "replay", "/webhook-logs")
    return render.page(
        request, "webhooks/replay.html", title="Sending again", nav="webhooks", replay=found, rev=found.rev
    )


@post("/webhook-replays/{replay_id:uuid}/stop", guards=[operator])
async def stop_replay(request: AnyRequest, replay_id: UUID) -> Answer:
    said, kind = "It stops before its next step.", "ok"
    try:
        async with acting(request) as session:
            await replays.stop(session, replay_id, actor=actor(request))
    except NotFound:
        return gone(request, "replay", "/webhook-logs")
    except ReplayEnded as error:
        said, kind = error.message, "error"
    return render.redirect(request, f"/webhook-replays/{replay_id}", said, kind)


routes = [deliveries, show, replay_one, replay_form, replay_many, show_replay, stop_replay]


def _filter(form: Form) -> tuple[dict[str, Any], dict[str, str]]:
    """The filter of a form, and what is wrong with it; a wrong filter means nothing."""
    problems: dict[str, str] = {}
    given: dict[str, Any] = {name: form.words(name) for name in FILTERS if name not in ("after", "before")}
    times: dict[str, datetime | None] = {name: moment(form, name, problems) for name in ("after", "before")}
    try:
        found = filters.checked(given | times)
    except Invalid as error:
        problems |= error.problems
    return ({}, problems) if problems else (found, {})


async def _plan_page(request: AnyRequest, form: Form, problems: dict[str, str] | None = None) -> Answer:
    """What would be sent again, counted now; what comes later is left out."""
    wanted, wrong = _filter(form)
    problems = (problems or {}) | wrong
    rate, cutoff = form.words("rate") or "10", utc_now()
    seen, names = None, dict[str, str]()
    sample: list[DeliveryView] = []
    if not problems:
        try:
            async with database(request).read() as connection:
                seen = await replays.preview(connection, wanted, rate_per_s=float(rate), cutoff=cutoff)
                names = {str(of): name for of, name in await webhook_names(connection)}
                sample = list((await list_deliveries(connection, wanted, request.user.role, limit=5)).items)
        except (Invalid, ValueError) as error:
            problems = error.problems if isinstance(error, Invalid) else {"rate": "must be a number"}
    typed = {name: form.words(name) for name in FILTERS}
    return render.page(
        request,
        "webhooks/replay_plan.html",
        title="Send again",
        nav="webhooks",
        status=422 if problems else 200,
        typed=typed,
        words=[(webhook_form.LABELS[name], names.get(str(value), value)) for name, value in wanted.items()],
        seen=seen,
        sample=sample,
        cutoff=cutoff.isoformat(),
        rate=rate,
        rates=RATES,
        problems=problems,
        errors=webhook_form.errors_of(problems),
        back_href=address("/webhook-logs", list(typed.items())),
    )
