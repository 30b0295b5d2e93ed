"""Events as the outbox has them: newest first by pattern, one by its id, and what came of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.roles import may_see, role_for
from webapp.queries.paging import Cursor, Page
from worker.events.models import OutboxRow
from worker.events.takers import matches
from worker.joblogs.models import JobLog

PAGE = 50
ROWS_AT_ONCE = 100
MOST_ROWS = 2000
"""How many rows one page looks through; a rare pattern goes on from there."""
LONGEST_TRANSACTION = timedelta(hours=1)
"""A row is written when its transaction commits: so much later than the event at most."""


@dataclass(frozen=True, slots=True)
class EventView:
    """One event and the row that holds it."""

    event_id: str
    event_type: str
    at: datetime
    user_id: str | None
    doctype: str | None
    doc_id: str | None
    data: Any
    caused_by: str | None
    correlation_id: str | None
    admin_only: bool
    published_at: datetime | None
    matched_at: datetime | None
    whole: dict[str, Any]

    @property
    def job_id(self) -> str | None:
        """The job that it is about, or that told it."""
        about = self.data.get("job_id") if isinstance(self.data, dict) else None
        cause = (
            (self.caused_by or "").removeprefix("job:") if (self.caused_by or "").startswith("job:") else None
        )
        return str(about) if about else cause

    @property
    def subject(self) -> str:
        """What it is about, in a few words."""
        data = self.data if isinstance(self.data, dict) else {}
        words = (
            (self.doctype, self.doc_id)
            if self.doctype
            else (data.get("job_name"), data.get("name"), data.get("queue"))
        )
        return " ".join(str(word) for word in words if word)[:200]


@dataclass(frozen=True, slots=True)
class Started:
    """A job that an event started."""

    job_id: str
    job_name: str
    status: str


async def newest(
    connection: AsyncConnection, pattern: str, role: str, *, cursor: Cursor | None = None, limit: int = PAGE
) -> Page[EventView]:
    """The newest events that match and that this role may see, older than the cursor."""
    found: list[tuple[EventView, UUID, int]] = []
    looked, last = 0, cursor
    while looked < MOST_ROWS and len(found) <= limit:
        rows = await _rows(connection, last)
        for row in rows:
            found += [
                (_view(row, event), row.id, place)
                for place, event in reversed(list(enumerate(row.events)))
                if _is_before(cursor, row.id, place)
                and matches(pattern, str(event.get("event_type")))
                and may_see(role, role_for(event))
            ]
        looked += len(rows)
        if len(rows) < ROWS_AT_ONCE:
            return _page(found, limit)
        last = Cursor("older", rows[-1].id)
    if len(found) > limit:
        return _page(found, limit)
    assert last is not None
    return Page([view for view, _, _ in found], str(last), None, rows[-1].created_at)


async def one(connection: AsyncConnection, event_id: str, role: str) -> EventView | None:
    """The event of this id, if it is still kept and this role may see it."""
    for row in await _rows_near(connection, event_id):
        for event in row.events:
            if event.get("event_id") == event_id and may_see(role, role_for(event)):
                return _view(row, event)
    return None


async def started_by(connection: AsyncConnection, event: EventView) -> list[Started]:
    """The jobs that the event started."""
    story = event.correlation_id or event.event_id
    cause = f"event:{event.event_id}"
    rows = await connection.execute(
        sa.select(JobLog.id, JobLog.job_name, JobLog.status)
        .where(
            JobLog.correlation_id == story,
            sa.or_(JobLog.caused_by == cause, JobLog.caused_by.startswith(f"{cause}#", autoescape=True)),
        )
        .order_by(JobLog.id)
        .limit(100)
    )
    return [Started(str(row.id), row.job_name, row.status) for row in rows]


async def _rows(connection: AsyncConnection, cursor: Cursor | None) -> Sequence[Any]:
    statement = sa.select(OutboxRow).order_by(OutboxRow.id.desc()).limit(ROWS_AT_ONCE)
    if cursor is not None:  # with a place, the cursor's own row has some left
        statement = statement.where(OutboxRow.id <= cursor.id if cursor.value else OutboxRow.id < cursor.id)
    return (await connection.execute(statement)).all()


async def _rows_near(connection: AsyncConnection, event_id: str) -> Sequence[Any]:
    """The rows that were written from the event's moment on: both ids begin with their time."""
    try:
        wanted = UUID(event_id)
    except ValueError:
        return []
    if wanted.version != 7:
        return []
    first_ms = wanted.int >> 80
    last_ms = first_ms + int(LONGEST_TRANSACTION.total_seconds() * 1000)
    first, last = UUID(int=first_ms << 80), UUID(int=last_ms << 80)
    position = first
    for _ in range(MOST_ROWS // ROWS_AT_ONCE):
        statement = (
            sa.select(OutboxRow).where(OutboxRow.id >= position, OutboxRow.id < last).order_by(OutboxRow.id)
        )
        rows = (await connection.execute(statement.limit(ROWS_AT_ONCE))).all()
        held = [row for row in rows if any(event.get("event_id") == event_id for event in row.events)]
        if held or len(rows) < ROWS_AT_ONCE:
            return held
        position = UUID(int=rows[-1].id.int + 1)
    return []


def _is_before(cursor: Cursor | None, row_id: UUID, place: int) -> bool:
    return cursor is None or row_id != cursor.id or not cursor.value or place < int(cursor.value)


def _page(found: Sequence[tuple[EventView, UUID, int]], limit: int) -> Page[EventView]:
    shown = found[:limit]
    more = str(Cursor("older", shown[-1][1], str(shown[-1][2]))) if len(found) > limit else None
    return Page([view for view, _, _ in shown], more)


def _view(row: Any, event: dict[str, Any]) -> EventView:
    return EventView(
        event_id=str(event.get("event_id")),
        event_type=str(event.get("event_type")),
        at=_instant(event.get("timestamp"), row.created_at),
        user_id=event.get("user_id"),
        doctype=event.get("doctype"),
        doc_id=event.get("doc_id"),
        data=event.get("data"),
        caused_by=event.get("caused_by"),
        correlation_id=event.get("correlation_id"),
        admin_only=role_for(event) == "admin",
        published_at=row.published_at,
        matched_at=row.matched_at,
        whole=event,
    )


def _instant(text: Any, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise
