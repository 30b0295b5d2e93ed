"""Handing recorded events to those who act on them: each row once, in one transaction with what they make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.session import Database
from worker.events import patterns
from worker.events.models import OutboxRow

BATCH = 100
BATCH_UNREAD = 1000

Event = dict[str, Any]
matches = lru_cache(8192)(patterns.matches)

_WAITING = OutboxRow.matched_at.is_(None)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event and when the transaction that made it true was about to commit."""

    event: Event
    at: datetime


class NotPrepared(Exception):
    """A taker has to look at the events once more, because what it goes by has changed since."""


class Taker(Protocol):
    """Acts on events inside the transaction that marks their rows as handed over: both happen, or neither."""

    async def patterns(self, connection: AsyncConnection | AsyncSession) -> Sequence[str]:
        """Which events it wants now; none: nothing is read for it."""
        ...

    async def prepare(self, database: Database, events: Sequence[Recorded]) -> None:
        """Does what takes long before anything is locked. `take` gets none but prepared events, maybe fewer."""
        ...

    async def take(self, session: AsyncSession, events: Sequence[Event]) -> None:
        """Gets events that match. It raises for trouble with the database alone, or NotPrepared: then all come again."""
        ...


async def hand_over(database: Database, takers: Sequence[Taker]) -> int:
    """Hands the oldest rows that nobody had to the takers; answers how many. Any number of processes may do so."""
    if not await database.any(OutboxRow, _WAITING):
        return 0
    async with database.read() as connection:
        # First the rows, then who wants them: whoever was there before an event gets it.
        ahead = await _ahead(connection)
        wanted = [(taker, await taker.patterns(connection)) for taker in takers]
        anybody = any(names for _, names in wanted)
        if anybody:
            ahead = await _read(connection, [row.id for row in ahead[:BATCH]])
    if anybody:
        told = [Recorded(event, row.created_at) for row in ahead for event in row.events]
        for taker, names in wanted:
            if mine := [each for each in told if means(names, each.event)]:
                await taker.prepare(database, mine)
    try:
        return await _take(database, wanted, ahead, read=anybody)
    except NotPrepared:
        return BATCH


async def _take(
    database: Database, wanted: Sequence[tuple[Taker, Sequence[str]]], ahead: Sequence[Any], *, read: bool
) -> int:
    async with database.transaction() as session:
        rows = await _locked(session, [row.id for row in ahead], read=read)
        if read:
            events = [event for row in rows for event in row.events]
            for taker, names in wanted:
                if mine := [event for event in events if means(names, event)]:
                    await taker.take(session, mine)
        await session.execute(
            sa.update(OutboxRow)
            .where(OutboxRow.id.in_([row.id for row in rows]))
            .values(matched_at=await database.now(session))
            .execution_options(synchronize_session=False)
        )
    return len(rows)


def means(names: Sequence[str], event: Event) -> bool:
    return any(matches(name, str(event.get("event_type"))) for name in names)


async def _ahead(connection: AsyncConnection) -> Sequence[Any]:
    statement = sa.select(OutboxRow.id).where(_WAITING).order_by(OutboxRow.id).limit(BATCH_UNREAD)
    return (await connection.execute(statement)).all()


async def _read(connection: AsyncConnection, ids: Sequence[UUID]) -> Sequence[Any]:
    columns = (OutboxRow.id, OutboxRow.events, OutboxRow.created_at)
    statement = sa.select(*columns).where(OutboxRow.id.in_(ids)).order_by(OutboxRow.id)
    return (await connection.execute(statement)).all()


async def _locked(session: AsyncSession, ids: Sequence[UUID], *, read: bool) -> Sequence[Any]:
    columns = (OutboxRow.id, OutboxRow.events) if read else (OutboxRow.id,)
    statement = sa.select(*columns).where(_WAITING, OutboxRow.id.in_(ids)).order_by(OutboxRow.id)
    return (await session.execute(statement.with_for_update(skip_locked=True))).all()
