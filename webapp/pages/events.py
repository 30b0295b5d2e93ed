"""Events: what happened, followed live; one event with what came of it; one published by hand."""

from __future__ import annotations

import json
from typing import Any

from litestar import get, post

from webapp import render
from webapp.arguments import json_text
from webapp.auth import actor, operator, viewer
from webapp.forms import Form, read_form
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, gone
from webapp.queries import events as queries
from webapp.queries.deliveries import told_of
from webapp.queries.paging import Cursor
from worker import strict_json
from worker.errors import Invalid
from worker.events import patterns
from worker.events.actions import publish

EVERYTHING = ">"


@get("/events", guards=[viewer])
async def stream(request: AnyRequest) -> Answer:
    typed = request.query_params.get("pattern", "").strip()
    problem = patterns.problem(typed) if typed else None
    pattern = EVERYTHING if problem or not typed else typed
    before = request.query_params.get("before")
    cursor = Cursor.parse(before) if before else None
    async with database(request).read() as connection:
        page = await queries.newest(connection, pattern, request.user.role, cursor=cursor)
    older = address("/events", [("pattern", typed), ("before", page.next)]) if page.next else None
    return render.page(
        request,
        "events/list.html",
        title="Events",
        nav="events",
        events=page.items,
        live_id=live_id(pattern),
        rev=rev_of(page.items),
        following=cursor is None and request.query_params.get("follow") != "no",
        first_page=cursor is None,
        typed=typed,
        problem=f"A pattern {problem}." if problem else None,
        searched_back_to=page.searched_back_to,
        older_href=older,
        follow_href=address("/events", [("pattern", typed)]),
        stop_href=address("/events", [("pattern", typed), ("follow", "no")]),
    )


@get("/events/publish", guards=[operator])
async def publish_form(request: AnyRequest) -> Answer:
    return _form(request, {"event_type": "", "doctype": "", "doc_id": "", "data": "{}"}, {})


@post("/events/publish", guards=[operator])
async def publish_one(request: AnyRequest) -> Answer:
    form = await read_form(request)
    typed = {name: form.words(name) for name in ("event_type", "doctype", "doc_id", "data")}
    try:
        wish = _wish(form, typed)
        async with acting(request) as session:
            told = await publish(session, wish, actor=actor(request))
    except Invalid as error:
        return _form(request, typed, error.problems)
    return render.redirect(request, f"/events/{told.event_id}", f"Published {told.event_type}.")


@get("/events/{event_id:str}", guards=[viewer])
async def show(request: AnyRequest, event_id: str) -> Answer:
    async with database(request).read() as connection:
        event = await queries.one(connection, event_id, request.user.role)
        if event is None:
            return gone(request, "event", "/events")
        started = await queries.started_by(connection, event)
        told = await told_of(connection, event.whole)
    return render.page(
        request,
        "events/show.html",
        title=event.event_type,
        nav="events",
        event=event,
        started=started,
        told=told,
        payload_text=json_text(event.whole),
    )


routes = [stream, publish_form, publish_one, show]


def live_id(pattern: str) -> str:
    """The pattern in characters that may stand in a fragment's id."""
    return pattern.replace("*", "@").replace(">", ":")


def pattern_of(of: str) -> str:
    return of.replace("@", "*").replace(":", ">")


def rev_of(events: Any) -> str:
    return str(events[0].event_id) if events else ""


def _wish(form: Form, typed: dict[str, str]) -> dict[str, Any]:
    form.required("event_type")
    form.check()
    data = strict_json.loads(typed["data"] or "{}")
    if not isinstance(data, dict):
        raise Invalid({"data": f"must be a JSON object, such as {json.dumps({'number': 7})}"})
    named = {name: typed[name] for name in ("doctype", "doc_id") if typed[name]}
    return {"event_type": typed["event_type"], "data": data, **named}


def _form(request: AnyRequest, typed: dict[str, str], problems: dict[str, str]) -> Answer:
    labels = {"event_type": "Type", "doctype": "Document type", "doc_id": "Document id", "data": "Data"}
    known = {name if name in labels else "data": said for name, said in problems.items()}
    return render.page(
        request,
        "events/publish.html",
        title="Publish an event",
        nav="events",
        status=422 if problems else 200,
        typed=typed,
        problems=known,
        errors=[(name, labels[name], said) for name, said in known.items()],
    )
