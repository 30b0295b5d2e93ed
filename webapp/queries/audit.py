"""SELECTs of the audit log: newest first, a page at a time by key, filtered through its indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.accounts.models import AuditEntry
from worker.db.session import Database

PAGE = 50
EXPORT_PIECE = 1000


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries: every field that is set must fit."""

    actor: str = ""
    action: str = ""
    object: str = ""
    """A type (`job`), an id, or both with a space between."""
    denied: bool = False

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        wanted: list[sa.ColumnElement[bool]] = []
        if self.actor:
            wanted.append(AuditEntry.actor.startswith(self.actor, autoescape=True))
        if self.action:
            wanted.append(AuditEntry.action == self.action)
        wanted += [
            sa.or_(AuditEntry.object_type == word, AuditEntry.object_id == word)
            for word in self.object.split()
        ]
        if self.denied:
            wanted.append(AuditEntry.denied.is_(True))
        return wanted


@dataclass(frozen=True, slots=True)
class EntryView:
    """One entry, as the page and the export show it."""

    id: UUID
    at: datetime
    actor: str
    actor_role: str
    via: str
    ip: str
    request_id: str
    action: str
    object_type: str
    object_id: str
    denied: bool
    before: dict[str, Any] | None
    after: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AuditPage:
    entries: list[EntryView]
    newer: UUID | None
    """Entries newer than this one are on the page before; None at the newest."""
    older: UUID | None


_COLUMNS = [AuditEntry.__table__.c[name] for name in EntryView.__slots__]


async def page(
    connection: AsyncConnection, wanted: AuditFilter, *, before: UUID | None = None, after: UUID | None = None
) -> AuditPage:
    """The entries older than `before`, or newer than `after`, or the newest ones."""
    statement = sa.select(*_COLUMNS).where(*wanted.conditions()).limit(PAGE + 1)
    if after is not None:
        statement = statement.where(AuditEntry.id > after).order_by(AuditEntry.id)
    else:
        statement = statement.order_by(AuditEntry.id.desc())
        if before is not None:
            statement = statement.where(AuditEntry.id < before)
    entries = [EntryView(*row) for row in await connection.execute(statement)]
    more, entries = len(entries) > PAGE, entries[:PAGE]
    if after is not None:
        entries.reverse()
    has_newer = more if after is not None else before is not None
    has_older = True if after is not None else more
    return AuditPage(
        entries,
        newer=entries[0].id if entries and has_newer else None,
        older=entries[-1].id if entries and has_older else None,
    )


async def actions(connection: AsyncConnection) -> list[str]:
    """The kinds of action there are, each found by one seek."""
    names = sa.select(sa.func.min(AuditEntry.action).label("name")).cte("names", recursive=True)
    following = (
        sa.select(sa.func.min(AuditEntry.action)).where(AuditEntry.action > names.c.name).scalar_subquery()
    )
    names = names.union_all(sa.select(following).where(names.c.name.is_not(None)))
    found = await connection.scalars(sa.select(names.c.name).where(names.c.name.is_not(None)))
    return list(found)


async def pieces(database: Database, wanted: AuditFilter) -> AsyncIterator[list[EntryView]]:
    """All matching entries, oldest first, in pieces: no connection is held while the reader reads."""
    last: UUID | None = None
    while True:
        statement = (
            sa.select(*_COLUMNS).where(*wanted.conditions()).order_by(AuditEntry.id).limit(EXPORT_PIECE)
        )
        async with database.read() as connection:
            rows = (
                await connection.execute(statement if last is None else statement.where(AuditEntry.id > last))
            ).all()
        if not rows:
            return
        yield [EntryView(*row) for row in rows]
        last = rows[-1].id
