"""Handing recorded events to those who act on them: each row once, in one transaction with what they make of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.session import Database
from worker.events import patterns
from worker.events.models import OutboxRow

BATCH = 100
BATCH_UNREAD = 1000

Event = dict[str, Any]
matches = lru_cache(8192)(patterns.matches)

_WAITING = OutboxRow.matched_at.is_(None)


class Taker(Protocol):
    """Acts on events inside the transaction that marks their rows as handed over: both happen, or neither."""

    async def patterns(self, session: AsyncSession) -> Sequence[str]:
        """Which events it wants now; none: nothing is read for it."""
        ...

    async def take(self, session: AsyncSession, events: Sequence[Event]) -> None:
        """Gets events that match. It raises for trouble with the database alone, then all come again."""
        ...


async def hand_over(database: Database, takers: Sequence[Taker]) -> int:
    """Hands the oldest rows that nobody had to the takers; answers how many. Any number of processes may do so."""
    if not await database.any(OutboxRow, _WAITING):
        return 0
    async with database.transaction() as session:
        wanted = [(taker, await taker.patterns(session)) for taker in takers]
        anybody = any(names for _, names in wanted)
        rows = await _waiting(session, BATCH if anybody else BATCH_UNREAD, read=anybody)
        if anybody:
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


async def _waiting(session: AsyncSession, limit: int, *, read: bool) -> Sequence[Any]:
    columns = (OutboxRow.id, OutboxRow.events) if read else (OutboxRow.id,)
    statement = sa.select(*columns).where(_WAITING).order_by(OutboxRow.id).limit(limit)
    return (await session.execute(statement.with_for_update(skip_locked=True))).all()
