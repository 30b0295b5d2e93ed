"""InMemoryEventBus: the event bus of a desk that is one process, and of tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worker.db.base import utc_now
from worker.ending import end
from worker.events.handling import Handling, check_subscription, delay_s, message_of
from worker.events.port import KEPT_FOR, MAX_DELIVERIES, Handler, Message
from worker.events.types import BaseEvent

MOST_MESSAGES = 10_000


@dataclass(slots=True)
class _Kept:
    number: int
    at: datetime
    topic: str
    data: bytes
    message_id: str
    recorded: bool


@dataclass(slots=True)
class _Place:
    """Where the subscribers of one name are: the next number, and what must come again: (due, deliveries, message)."""

    next: int
    again: list[tuple[float, int, _Kept]] = field(default_factory=list)


class InMemoryEventBus:
    """Keeps the last ten thousand messages. Tests of two processes give both the same one."""

    backend = "memory"
    connected = True

    def __init__(self) -> None:
        self._born = utc_now()
        self._kept: deque[_Kept] = deque(maxlen=MOST_MESSAGES)
        self._count = 0
        self._places: dict[str, _Place] = {}
        self._subscriptions: set[MemorySubscription] = set()
        self._news = asyncio.Event()

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def stop(self) -> None:
        for subscription in tuple(self._subscriptions):
            await subscription.stop()

    async def publish(self, topic: str, event: BaseEvent | Sequence[BaseEvent]) -> None:
        await self.publish_many([message_of(topic, event)])

    async def publish_many(self, messages: Sequence[Message]) -> None:
        now = utc_now()
        while self._kept and self._kept[0].at < now - KEPT_FOR:
            self._kept.popleft()
        lately = {kept.message_id for kept in self._kept if kept.message_id}
        for message in messages:
            if message.message_id in lately:
                continue
            self._count += 1
            self._kept.append(
                _Kept(self._count, now, message.topic, message.data, message.message_id, message.recorded)
            )
        self._tell()

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        since: datetime | None = None,
        foreign: bool = False,
    ) -> MemorySubscription:
        check_subscription(pattern, durable, since)
        first = self._count + 1
        if since is not None:
            first = next((kept.number for kept in self._kept if kept.at >= since), first)
        place = _Place(first) if durable is None else self._places.setdefault(durable, _Place(first))
        subscription = MemorySubscription(self, Handling(pattern, handler, foreign), place)
        self._subscriptions.add(subscription)
        return subscription

    async def born(self) -> datetime:
        return self._born

    async def stats(self) -> dict[str, Any]:
        return {"backend": self.backend, "connected": True, "stream": {"messages": len(self._kept)}}

    # For its subscriptions

    async def next(self, place: _Place) -> tuple[int, _Kept]:
        """The next message of a place, and how often it was delivered with this time; waits for one."""
        now = asyncio.get_running_loop().time
        while True:
            news = self._news
            due = sorted((each for each in place.again if each[0] <= now()), key=_due_at)[:1]
            if due:
                place.again.remove(due[0])
                return due[0][1] + 1, due[0][2]
            if self._kept and place.next <= self._count:
                kept = self._kept[max(0, place.next - self._kept[0].number)]
                place.next = kept.number + 1
                return 1, kept
            soonest = min((each[0] for each in place.again), default=now() + 3600)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, soonest - now())):
                    await news.wait()

    def again(self, place: _Place, deliveries: int, kept: _Kept, after_s: float) -> None:
        place.again.append((asyncio.get_running_loop().time() + after_s, deliveries, kept))
        self._tell()

    def forget(self, subscription: MemorySubscription) -> None:
        self._subscriptions.discard(subscription)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class MemorySubscription:
    """Takes messages of its place one after the other."""

    def __init__(self, bus: InMemoryEventBus, handling: Handling, place: _Place) -> None:
        self._bus = bus
        self._handling = handling
        self._place = place
        self._task = asyncio.create_task(self._run(), name=f"events: {handling.pattern}")

    async def stop(self) -> None:
        self._bus.forget(self)
        await end(self._task)

    async def _run(self) -> None:
        while True:
            deliveries, kept = await self._bus.next(self._place)
            try:
                handled = await self._handling.handle(kept.topic, kept.data, kept.recorded)
            except asyncio.CancelledError:
                self._bus.again(self._place, deliveries, kept, 0)
                raise
            if handled:
                continue
            if deliveries >= MAX_DELIVERIES:
                self._handling.give_up(kept.topic, deliveries)
            else:
                self._bus.again(self._place, deliveries, kept, delay_s(deliveries))


def _due_at(again: tuple[float, int, _Kept]) -> float:
    return again[0]
