"""The relay: what transactions recorded in the outbox goes on to the bus, at least once, with ids that never change."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.session import Database
from worker.errors import BusAway
from worker.events.handling import pack
from worker.events.models import OutboxRow
from worker.events.port import EventBusProtocol, Message
from worker.events.types import type_problem

log = structlog.get_logger(__name__)

BATCH = 100
TOO_LARGE = 900_000
"""A server takes a megabyte by default."""
CHECK_S = 5.0
AGAIN_FOR = timedelta(minutes=10)
"""How much of what was published is published again when the broker turns out to have lost everything."""
CLOCK_SLACK = timedelta(seconds=10)
"""How far the clocks of broker and database may disagree; what is sent twice for it, the broker drops by its id."""
LONGEST_IN_OUTBOX = timedelta(days=1)

LOCK = 7_305_522_260_118
"""The advisory lock of whoever relays, on PostgreSQL. Rows are not locked: takers must not wait for a broker."""

_WAITING = OutboxRow.published_at.is_(None)


class Relay:
    """One process's hand between outbox and bus. Any number may try; on PostgreSQL one works at a time."""

    def __init__(self, database: Database, bus: EventBusProtocol) -> None:
        self._database = database
        self._bus = bus
        self._born: datetime | None = None
        self._looked_at = float("-inf")
        self._trouble = False

    async def __call__(self) -> int:
        """Publishes the oldest rows that wait; answers how many. A bus that is away is only noted: rows wait for it."""
        try:
            await self._look_after_the_broker()
            done = await self._publish_some()
        except BusAway as error:
            if not self._trouble:
                log.warning("Events wait in the outbox: the bus is away", error=error.message)
            self._trouble, self._looked_at = True, float("-inf")
            return 0
        self._trouble = False
        return done

    async def _look_after_the_broker(self) -> None:
        """A broker that was wiped gets again what was published just before: subscribers may not have had it."""
        if time.monotonic() - self._looked_at < CHECK_S:
            return
        born = await self._bus.born()
        if born != self._born:
            again = await publish_again(self._database, born)
            if again:
                log.warning("The bus began anew: events are published again", rows=again, since=str(born))
        self._born, self._looked_at = born, time.monotonic()

    async def _publish_some(self) -> int:
        if not await self._database.any(OutboxRow, _WAITING):
            return 0
        if self._database.dialect == "sqlite":
            return await self._publish_unlocked()
        async with self._database.transaction() as session:
            if not await session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(LOCK))):
                return 0  # another relay is at it
            rows = await _waiting(session)
            await self._bus.publish_many(messages(rows))
            await _published(session, await self._database.now(session), [row.id for row in rows])
        return len(rows)

    async def _publish_unlocked(self) -> int:
        """SQLite's only lock must not wait for a broker; two relays that meet send twice, and ids tell."""
        async with self._database.read() as connection:
            rows = await _waiting(connection)
        await self._bus.publish_many(messages(rows))
        async with self._database.transaction() as session:
            await _published(session, await self._database.now(session), [row.id for row in rows])
        return len(rows)


def messages(rows: Iterable[Any]) -> list[Message]:
    """One message for each row and type, split where it is too large; the same rows give the same ids."""
    made: list[Message] = []
    for row in rows:
        by_type: dict[str, list[dict[str, Any]]] = {}
        for event in row.events:
            by_type.setdefault(str(event.get("event_type")), []).append(event)
        for event_type, events in by_type.items():
            if type_problem(event_type):
                log.error("Events of a name that is none stay in the outbox", event_type=event_type[:80])
                continue
            for number, data in enumerate(pack(events)):
                if len(data) > TOO_LARGE:
                    log.error("An event is too large for the bus", event_type=event_type, bytes=len(data))
                else:
                    made.append(Message(event_type, data, f"{row.id}.{event_type}.{number}", recorded=True))
    return made


async def publish_again(database: Database, born: datetime) -> int:
    """Makes rows wait again that were published before the bus's present life began; answers how many."""
    lost = sa.and_(
        OutboxRow.created_at > born - LONGEST_IN_OUTBOX,
        OutboxRow.published_at > born - AGAIN_FOR,
        OutboxRow.published_at < born + CLOCK_SLACK,
    )
    if not await database.any(OutboxRow, lost):
        return 0
    async with database.transaction() as session:
        result: Any = await session.execute(
            sa.update(OutboxRow)
            .where(lost)
            .values(published_at=None)
            .execution_options(synchronize_session=False)
        )
        return int(result.rowcount)


async def _waiting(source: AsyncConnection | AsyncSession) -> Sequence[Any]:
    statement = sa.select(OutboxRow.id, OutboxRow.events).where(_WAITING).order_by(OutboxRow.id).limit(BATCH)
    return (await source.execute(statement)).all()


async def _published(session: AsyncSession, now: datetime, ids: Sequence[UUID]) -> None:
    await session.execute(
        sa.update(OutboxRow)
        .where(OutboxRow.id.in_(ids))
        .values(published_at=now)
        .execution_options(synchronize_session=False)
    )
