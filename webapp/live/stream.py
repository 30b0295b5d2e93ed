"""Facts as JSON for API clients: patterns they subscribed to, events read from the outbox rows that a commit named."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.hub import ABUSE, LiveSocket
from webapp.live.roles import may_see, role_for
from webapp.live.waiting import Piece
from worker.db.base import utc_now
from worker.events import patterns
from worker.events.models import OutboxRow

MAX_PATTERNS: Final = 100
ROWS_PER_TICK: Final = 200
REMEMBERED: Final = 20_000
MISSED: Final = timedelta(seconds=30)
"""How far back to look after messages may have been missed."""


class StreamMessage(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say."""

    subscribe: list[str] = []
    unsubscribe: list[str] = []


class Stream:
    """The API clients of this process. Nobody subscribed: nothing is read."""

    def __init__(self) -> None:
        self.subscribed: dict[LiveSocket, set[str]] = {}
        self._rows: OrderedDict[UUID, None] = OrderedDict()
        self._seen: OrderedDict[UUID, None] = OrderedDict()
        self._look_back = False

    # Clients

    def join(self, live: LiveSocket) -> None:
        self.subscribed[live] = set()

    def leave(self, live: LiveSocket) -> None:
        self.subscribed.pop(live, None)

    def hear(self, live: LiveSocket, text: str) -> None:
        """What a client said; what is wrong with it is answered with an error frame."""
        try:
            message = _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            live.tell({"error": {"detail": f'{error}. Send {{"subscribe": ["job.>"]}}.'}})
            return
        wanted = self.subscribed[live]
        wanted.difference_update(message.unsubscribe)
        for pattern in message.subscribe:
            if (refused := refusal(pattern, live.user.role)) is None:
                wanted.add(pattern)
            else:
                live.tell({"error": {"pattern": pattern[:300], "detail": refused}})
        if len(wanted) > MAX_PATTERNS:
            live.end(ABUSE)

    def wants(self, live: LiveSocket, topic: str) -> bool:
        return any(_matches(pattern, topic) for pattern in self.subscribed.get(live, ()))

    # Facts

    @property
    def due(self) -> bool:
        return bool(self._rows or self._look_back)

    def committed(self, row_ids: Iterable[UUID]) -> bool:
        """Outbox rows to read at the next tick, in the order in which they were named. True: there is something to do."""
        if any(self.subscribed.values()):
            self._rows.update((row_id, None) for row_id in row_ids if row_id not in self._seen)
        return self.due

    def look_back(self) -> None:
        """Messages may have been missed: looks at all rows of the last half minute."""
        self._look_back = any(self.subscribed.values())

    async def tick(self, connection: AsyncConnection) -> None:
        if self._look_back:
            self._look_back = False
            self.committed(await _recent(connection))
        ids = [self._rows.popitem(last=False)[0] for _ in range(min(ROWS_PER_TICK, len(self._rows)))]
        if not ids:
            return
        try:
            events = await _events(connection, ids)
        except BaseException:
            self._rows.update((row_id, None) for row_id in ids)
            raise
        self._remember(ids)
        for row_id in ids:
            for event in events.get(row_id, ()):
                self._send(event)

    def _send(self, event: dict[str, Any]) -> None:
        topic, needed = str(event.get("event_type")), role_for(event)
        piece: Piece | None = None
        for live in tuple(self.subscribed):
            if self.wants(live, topic) and may_see(live.user.role, needed):
                piece = piece or Piece.of_json(msgspec.json.encode({"topic": topic, "event": event}))
                live.append(piece)

    def _remember(self, ids: Iterable[UUID]) -> None:
        self._seen.update((row_id, None) for row_id in ids)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def refusal(pattern: str, role: str) -> str | None:
    """Why this role may not subscribe to this pattern; None when it may."""
    if (problem := patterns.problem(pattern)) is not None:
        return f"A pattern {problem}."
    if patterns.is_open(pattern) and not may_see(role, "admin"):
        return "Only an admin may follow everything: begin the pattern with a word, such as job.>"
    return None


async def _events(connection: AsyncConnection, ids: list[UUID]) -> dict[UUID, list[Any]]:
    rows = await connection.execute(sa.select(OutboxRow.id, OutboxRow.events).where(OutboxRow.id.in_(ids)))
    return {row.id: row.events for row in rows}


async def _recent(connection: AsyncConnection) -> list[UUID]:
    """Newest last; ids are as good as times here, since looking twice at a row does nothing."""
    since = sa.select(OutboxRow.id).where(OutboxRow.created_at > utc_now() - MISSED).order_by(OutboxRow.id)
    return list(await connection.scalars(since))


_decoder = msgspec.json.Decoder(StreamMessage)
_matches = lru_cache(4096)(patterns.matches)
