"""Events that other programs put on the bus enter the outbox first: from there jobs and webhooks get them, and the stream."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.dialects import postgresql, sqlite

from worker.db.base import utc_now
from worker.db.session import Database, recorded
from worker.errors import BusAway, Invalid
from worker.events.actions import check_foreign
from worker.events.models import OutboxRow
from worker.events.port import KEPT_FOR, EventBusProtocol
from worker.events.types import BaseEvent

log = structlog.get_logger(__name__)

NAME = "outbox"
AHEAD = timedelta(days=1)


class Intake:
    """One clerk's share of the foreign events: several share them by the name of the subscription."""

    def __init__(self, database: Database, bus: EventBusProtocol) -> None:
        self._database = database
        self._bus = bus
        self._subscribed = False

    async def __call__(self) -> int:
        """Subscribes, once; the subscription outlives outages of the broker."""
        if not self._subscribed:
            try:
                await self._bus.born()
            except BusAway:
                return 0
            await self._bus.subscribe(">", self.take, durable=NAME, foreign=True)
            self._subscribed = True
        return 0

    async def take(self, event: BaseEvent) -> None:
        """Records it, once however often it comes. What may not be said from outside is dropped and logged."""
        now = utc_now()
        try:
            plain = check_foreign(event)
        except Invalid as error:
            log.warning("A foreign event was dropped", event_id=event.event_id, problem=error.message)
            return
        if not now - KEPT_FOR < event.timestamp < now + AHEAD:
            log.warning(
                "A foreign event was dropped: its time is not now",
                event_id=event.event_id,
                at=str(event.timestamp),
            )
            return
        await self._record(row_id_of(event), plain, now)

    async def _record(self, row_id: UUID, plain: dict[str, Any], now: datetime) -> None:
        insert: Any = sqlite.insert if self._database.dialect == "sqlite" else postgresql.insert
        async with self._database.transaction() as session:
            row = {
                "id": row_id,
                "events": [plain],
                "created_at": now,
                "published_at": await self._database.now(session),
            }
            statement = insert(OutboxRow).values(row).on_conflict_do_nothing().returning(OutboxRow.id)
            if (await session.execute(statement)).first() is not None:
                recorded(session, row_id)


def row_id_of(event: BaseEvent) -> UUID:
    """The same for the same event: a UUIDv7 of its moment, its random part made from its id."""
    digest = int.from_bytes(hashlib.sha256(event.event_id.encode()).digest()[:10], "big")
    moment = int(event.timestamp.timestamp() * 1000)
    random_a, random_b = digest >> 68, digest & ((1 << 62) - 1)
    return UUID(int=moment << 80 | 7 << 76 | random_a << 64 | 2 << 62 | random_b)
