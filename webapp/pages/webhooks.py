"""The pages of webhooks: the list, one with its deliveries, the form with what it would do, a secret shown once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.auth import actor, admin, viewer
from webapp.forms import Form, read_form
from webapp.pages import webhook_form
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, gone, settings
from webapp.pages.webhook_form import Tried
from webapp.pages.webhook_snippets import snippets
from webapp.queries import events as events_queries
from webapp.queries.deliveries import list_deliveries, misses_of_webhook, rev_of
from webapp.queries.events import EventView
from webapp.queries.webhooks import WebhookView, list_webhooks, one_webhook
from worker.errors import ChangedMeanwhile, EvaluationAway, Invalid, NotFound
from worker.events import patterns
from worker.webhooks import actions
from worker.webhooks.checks import WebhookChecks
from worker.webhooks.trial import try_out
from worker.webhooks.wishes import checked

TRIED_EVENTS = 15
SAMPLE: dict[str, Any] = {
    "event_id": "sample", "event_type": "job.failed", "timestamp": "2026-01-01T09:00:00.000Z", "user_id": None,
    "data": {"job_id": "019ab1c2-7d3e-7f00-8a11-2b3c4d5e6f70", "job_name": "send_email", "queue": "default",
             "status": "failed", "attempt": 4, "reason": "error", "rev": 9},
}  # fmt: skip
"""What a form is tried on while nothing has happened that its pattern means."""


@get("/webhooks", guards=[viewer])
async def webhooks(request: AnyRequest) -> Answer:
    q, after = request.query_params.get("q", "").strip()[:200], request.query_params.get("after") or None
    async with database(request).read() as connection:
        found, more = await list_webhooks(connection, q=q, after=after)
        some = bool(found) or bool((await list_webhooks(connection, limit=1))[0])
    return render.page(
        request,
        "webhooks/list.html",
        title="Webhooks",
        nav="webhooks",
        webhooks=found,
        q=q,
        some=some,
        newer_href=address("/webhooks", [("q", q)]) if after else None,
        older_href=address("/webhooks", [("q", q), ("after", more)]) if more else None,
    )


@get("/webhooks/{webhook_id:uuid}", guards=[viewer])
async def show(request: AnyRequest, webhook_id: UUID) -> Answer:
    return await show_page(request, webhook_id)


async def show_page(request: AnyRequest, webhook_id: UUID, secret: str | None = None) -> Answer:
    """One webhook, with the secret that it was given just now, if it was."""
    async with database(request).read() as connection:
        view = await one_webhook(connection, webhook_id)
        if view is None:
            return gone(request, "webhook", "/webhooks")
        page = await list_deliveries(connection, {"webhook_id": str(webhook_id)}, request.user.role)
        misses = await misses_of_webhook(connection, webhook_id, request.user.role)
    return render.page(
        request,
        "webhooks/show.html",
        title=view.name,
        nav="webhooks",
        webhook=view,
        deliveries=page.items,
        deliveries_rev=rev_of(page.items),
        misses=misses,
        covered=webhook_form.covered_words(view.retry, view.max_retries),
        secret=secret,
        snippets=snippets(),
        all_href=address("/webhook-logs", [("webhook_id", view.id)]),
    )


# Making and changing


@get("/webhooks/new", guards=[admin])
async def new_form(request: AnyRequest) -> Answer:
    return await _form_page(request, None)


@post("/webhooks/new", guards=[admin])
async def create(request: AnyRequest) -> Answer:
    form = await read_form(request)
    if form.flag("preview"):
        return await _form_page(request, None, form)
    try:
        given = webhook_form.wish(form) | {"enabled": form.flag("enabled")}
        if own := form.words("secret"):
            given["secret"] = own
        wish = await checked(given, checks(request))
        async with acting(request) as session:
            made, secret = await actions.create(session, wish, actor=actor(request))
    except (Invalid, EvaluationAway) as error:
        return await _form_page(request, None, form, _problems(error))
    return await show_page(request, made.id, secret)


@get("/webhooks/{webhook_id:uuid}/edit", guards=[admin])
async def edit_form(request: AnyRequest, webhook_id: UUID) -> Answer:
    view = await _view(request, webhook_id)
    return gone(request, "webhook", "/webhooks") if view is None else await _form_page(request, view)


@post("/webhooks/{webhook_id:uuid}/edit", guards=[admin])
async def save(request: AnyRequest, webhook_id: UUID) -> Answer:
    form, view = await read_form(request), await _view(request, webhook_id)
    if view is None:
        return gone(request, "webhook", "/webhooks")
    if form.flag("preview"):
        return await _form_page(request, view, form)
    version = form.words("version")
    try:
        wish = await checked(webhook_form.wish(form), checks(request), whole=False)
        async with acting(request) as session:
            await actions.edit(
                session,
                webhook_id,
                wish,
                version=int(version) if version.isdecimal() and len(version) < 10 else None,
                actor=actor(request),
            )
    except (Invalid, EvaluationAway) as error:
        return await _form_page(request, view, form, _problems(error))
    except ChangedMeanwhile as error:
        problem = {"": f"{error.message} What you typed is kept: save again to overwrite it."}
        return await _form_page(request, await _view(request, webhook_id), form, problem)
    except NotFound:
        return gone(request, "webhook", "/webhooks")
    return render.redirect(request, f"/webhooks/{webhook_id}", "Saved. It holds from now on.")


@post("/webhooks/try", guards=[admin])
async def try_form(request: AnyRequest) -> Answer:
    """What is being typed, tried on an event that happened: fetched while typing. Nothing is sent or stored."""
    form = await read_form(request)
    return render.fragment(
        request, "webhooks/_trial.html", tried=await _tried(request, webhook_form.typed(form), form)
    )


routes = [webhooks, show, new_form, create, edit_form, save, try_form]


def checks(request: AnyRequest) -> WebhookChecks:
    found: WebhookChecks = request.app.state.webhook_checks
    return found


def _problems(error: Invalid | EvaluationAway) -> dict[str, str]:
    return error.problems if isinstance(error, Invalid) else {"": error.message}


async def _form_page(
    request: AnyRequest,
    view: WebhookView | None,
    sent: Form | None = None,
    problems: dict[str, str] | None = None,
) -> Answer:
    problems = problems or {}
    values = webhook_form.typed(sent) if sent else webhook_form.shown(view)
    return render.page(
        request,
        "webhooks/edit.html",
        title=f"Edit {view.name}" if view else "New webhook",
        nav="webhooks",
        status=422 if problems else 200,
        webhook=view,
        values=values,
        problems=problems,
        errors=webhook_form.errors_of(problems),
        enabled=sent.flag("enabled") if sent else True,
        plans=webhook_form.plans(),
        methods=webhook_form.methods(),
        ready=webhook_form.READY,
        tried=await _tried(request, values, sent),
    )


async def _tried(request: AnyRequest, values: dict[str, str], form: Form | None) -> Tried:
    """Tried on the chosen event, else on the newest one that the pattern means, else on a sample."""
    pattern = values["event"].strip() or ">"
    pattern_problem = patterns.problem(pattern)
    async with database(request).read() as connection:
        newest = await events_queries.newest(
            connection, ">" if pattern_problem else pattern, request.user.role, limit=TRIED_EVENTS
        )
        chosen = form.words("try_event") if form else ""
        event = await events_queries.one(connection, chosen, request.user.role) if chosen else None
    event = event or next(iter(newest.items), None)
    types, more = (
        ([], 0)
        if pattern_problem
        else webhook_form.fitting_types(pattern, [one.event_type for one in newest.items])
    )
    trial, problem = await _trial(request, values, event)
    return Tried(
        types=types if values["event"].strip() else [],
        more_types=more if values["event"].strip() else 0,
        pattern_problem=pattern_problem if values["event"].strip() else None,
        events=[(one.event_id, f"{one.event_type} {one.subject}".strip()) for one in newest.items],
        event=event,
        trial=trial,
        problem=problem,
    )


async def _trial(
    request: AnyRequest, values: dict[str, str], event: EventView | None
) -> tuple[Any, str | None]:
    pattern = values["event"].strip() or ">"
    wish = {
        "name": values["name"].strip() or "this webhook",
        "event": ">" if patterns.problem(pattern) else pattern,  # its own problem is said beside it
        "doctype_filter": values["doctype_filter"].strip() or None,
        "condition": values["condition"].strip() or None,
        "payload_template": values["payload_template"] if values["payload_template"].strip() else None,
        "url": values["url"].strip(),
    }
    try:
        tried = await try_out(
            checks(request), wish, event.whole if event else SAMPLE, desk_url=settings(request).base_url
        )
    except EvaluationAway as error:
        return None, error.message
    return tried, None


async def _view(request: AnyRequest, webhook_id: UUID) -> WebhookView | None:
    async with database(request).read() as connection:
        return await one_webhook(connection, webhook_id)
