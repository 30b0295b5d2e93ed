"""/api/v1/events: what happened, newest first, and events of one's own."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get, post
from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import CURSOR, LIMIT, Instant, Limit, exact, instant
from webapp.auth import actor, operator, viewer
from webapp.queries import events as queries
from webapp.queries.events import EventView
from webapp.queries.paging import Cursor
from worker.errors import Invalid, NotFound
from worker.events import patterns
from worker.events.actions import publish

AnyRequest = Request[Any, Any, Any]

TYPE = "words of a-z, 0-9, _ and - joined by dots, at most 200 characters"
DATA = "a JSON object; the whole event has at most 65,536 bytes"
WORDS = "a text of 1 to 200 characters"

Words = Annotated[str, Meta(min_length=1, max_length=200)]


class NewEvent(Struct):
    """A fact to be told."""

    event_type: Annotated[str, Meta(description=TYPE)]
    data: Annotated[dict[str, Any], Meta(description=DATA)] = {}
    doctype: Annotated[Words | UnsetType, Meta(description=WORDS)] = UNSET
    doc_id: Annotated[Words | UnsetType, Meta(description=WORDS)] = UNSET


class Told(Struct):
    event_id: str


class EventState(Struct):
    """One event, and how far it has come."""

    event_id: str
    event_type: str
    timestamp: Instant
    user_id: str | None
    doctype: str | None
    doc_id: str | None
    data: Any
    caused_by: Annotated[str | None, Meta(description="`job:<id>` when a job told it")]
    correlation_id: str | None
    published_at: Annotated[Instant | None, Meta(description="when the bus had it")]
    matched_at: Annotated[Instant | None, Meta(description="when jobs and webhooks that wait for it had it")]


class EventStates(Struct):
    items: list[EventState]
    next_cursor: str | None


class EventQuery(Struct):
    """Which events."""

    pattern: Annotated[str, Meta(description="a pattern such as job.> or doc.*")] = ">"
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[str | None, Meta(description=CURSOR)] = None


@post(
    "/events",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=NewEvent, example=examples.NEW_EVENT, answer={"event_id": examples.EVENT["event_id"]}
    ),
    summary="Publish an event",
)
async def publish_event(request: AnyRequest) -> Told:
    """It is recorded when the answer comes; the bus, webhooks and jobs that wait for it get it within a moment."""
    wish = to_builtins(await strict.body(request, NewEvent))
    async with database(request).transaction() as session:
        told = await publish(session, wish, actor=actor(request))
    return Told(told.event_id)


@get(
    "/events",
    guards=[viewer],
    operation_class=documented(query=EventQuery, answer={"items": [examples.EVENT], "next_cursor": None}),
    summary="List events",
)
async def list_events(request: AnyRequest) -> EventStates:
    """Newest first, seven days back. A page may be empty and still have a `next_cursor`: the search goes on from there."""
    asked = strict.query(request, EventQuery)
    if problem := patterns.problem(asked.pattern):
        raise Invalid({"pattern": f"{strict.shown(asked.pattern)} {problem}"})
    cursor = Cursor.parse(asked.cursor) if asked.cursor else None
    async with database(request).read() as connection:
        page = await queries.newest(
            connection, asked.pattern, request.user.role, cursor=cursor, limit=asked.limit
        )
    return EventStates([_state(view) for view in page.items], page.next)


@get(
    "/events/{event_id:str}",
    guards=[viewer],
    operation_class=documented(answer=examples.EVENT, problems=(404,)),
    summary="Read an event",
)
async def one_event(request: AnyRequest, event_id: str) -> EventState:
    """One event of the last seven days."""
    async with database(request).read() as connection:
        view = await queries.one(connection, event_id, request.user.role)
    if view is None:
        raise NotFound(noun="event", key=event_id[:80])
    return _state(view)


routes = [publish_event, list_events, one_event]


def _state(view: EventView) -> EventState:
    same = ("event_id", "event_type", "user_id", "doctype", "doc_id", "data", "caused_by", "correlation_id")
    return EventState(
        **{name: getattr(view, name) for name in same},
        timestamp=exact(view.at),
        published_at=instant(view.published_at),
        matched_at=instant(view.matched_at),
    )
