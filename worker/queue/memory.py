"""Doorbells within one process: for `m web` without a broker, and for tests. Same promises as NATS and Redis, nothing stored."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from worker.db.session import Doorbell
from worker.queue.broker import JobQueue
from worker.queue.lanes import Lane, lane_of
from worker.queue.port import Delivery, Free, Order, SignalHandler

log = structlog.get_logger(__name__)


class MemoryDoorbells:
    """One process's lanes. `drop` makes it lose that share of what is rung, to show that nothing depends on it."""

    backend = "memory"
    connected = True

    def __init__(self, *, drop: float = 0.0) -> None:
        self.drop = drop
        self._lanes: dict[Lane, deque[UUID]] = {}
        self._listeners: list[MemoryListener] = []
        self._handlers: dict[UUID, SignalHandler] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    async def start(self) -> None:
        """There is nothing to connect."""

    async def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def ring(self, bells: Sequence[Doorbell]) -> None:
        for bell in bells:
            if random.random() >= self.drop:
                self.put(lane_of(bell), bell.job_id)

    def put(self, lane: Lane, job_id: UUID, *, first: bool = False) -> None:
        waiting = self._lanes.setdefault(lane, deque())
        if first:
            waiting.appendleft(job_id)
        else:
            waiting.append(job_id)
        for listener in self._listeners:
            listener.wake()

    def put_later(self, lane: Lane, job_id: UUID, delay_s: float) -> None:
        def due() -> None:
            self._timers.discard(timer)
            self.put(lane, job_id)

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    def listen(self, lanes: Sequence[Lane], free: Free, order: Order | None = None) -> MemoryListener:
        listener = MemoryListener(self, order or (lambda: lanes), free)
        self._listeners.append(listener)
        return listener

    async def signal(self, worker_id: UUID, message: dict[str, Any]) -> None:
        if handler := self._handlers.get(worker_id):
            try:
                await handler(message)
            except Exception:
                log.exception("A control message could not be handled", worker_id=str(worker_id))

    def on_signal(self, worker_id: UUID, handler: SignalHandler) -> None:
        self._handlers[worker_id] = handler

    async def stats(self) -> dict[str, Any]:
        waiting = [
            {"queue": lane.queue, "lane": lane.name, "pending": len(ids), "ack_pending": 0, "redelivered": 0}
            for lane, ids in self._lanes.items()
        ]
        return {"backend": self.backend, "connected": True, "consumers": waiting}

    def forget(self, listener: MemoryListener) -> None:
        self._listeners.remove(listener)

    def waiting(self, lane: Lane) -> deque[UUID]:
        return self._lanes.setdefault(lane, deque())


@dataclass(slots=True)
class MemoryDelivery:
    """A doorbell that was taken out of its lane; a nak puts it back."""

    job_id: UUID
    lane: Lane
    doorbells: MemoryDoorbells

    async def ack(self) -> None:
        """It is out of the lane already."""

    async def nak(self, delay_s: float = 0.0) -> None:
        if delay_s:
            self.doorbells.put_later(self.lane, self.job_id, delay_s)
        else:
            self.doorbells.put(self.lane, self.job_id, first=True)


class MemoryListener:
    """Takes from the lanes only what a slot is free for, so it holds nothing."""

    def __init__(self, doorbells: MemoryDoorbells, order: Order, free: Free) -> None:
        self._doorbells = doorbells
        self._order = order
        self._free = free
        self._wake = asyncio.Event()

    async def take(self) -> list[Delivery]:
        while not (taken := self._taken()):
            self._wake.clear()
            await self._wake.wait()
        return taken

    def wake(self) -> None:
        self._wake.set()

    def add(self, lanes: Sequence[Lane]) -> None:
        self.wake()  # every lane is at hand: the order decides which are looked at

    async def close(self) -> None:
        self._doorbells.forget(self)

    def _taken(self) -> list[Delivery]:
        taken: list[Delivery] = []
        for lane in self._order():
            waiting = self._doorbells.waiting(lane)
            while waiting and self._free(lane) > len(taken):
                taken.append(MemoryDelivery(waiting.popleft(), lane, self._doorbells))
        return taken


class InMemoryJobQueue(JobQueue):
    """The queue for local development: rows as ever, doorbells that stay in this process."""
