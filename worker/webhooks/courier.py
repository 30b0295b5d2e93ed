"""Sends what is due, many deliveries at once; a dead endpoint takes room from no live one."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.batch import MicroBatch
from worker.db.base import new_id
from worker.db.session import Database
from worker.ending import end
from worker.webhooks.claims import claim, renew, take_back_lost
from worker.webhooks.fairness import Room
from worker.webhooks.finishes import Finished, finish
from worker.webhooks.ports import Delivery, Sender

log = structlog.get_logger(__name__)

SOUND: Final = 100
"""Requests under way to webhooks that answer."""
DOUBTFUL: Final = 20
"""Requests under way to webhooks that fail or are slow, at most two of each."""
ALL: Final = 400
"""Requests under way in all: what turns out to be slow gives its room back to others."""
SLOW_S: Final = 2.0
FINISH_BATCH: Final = 100
END_S: Final = 1.0
AGAIN_S: Final = 0.5


@dataclass(slots=True)
class Flight:
    """A request under way."""

    webhook_id: UUID
    since: float
    doubtful: bool


class Courier:
    """One process's share of the deliveries. Each call looks once and starts what is due; requests go on meanwhile."""

    def __init__(
        self,
        database: Database,
        sender: Sender,
        *,
        lease_s: float = 15.0,
        wake: asyncio.Event | None = None,
        process_id: UUID | None = None,
    ) -> None:
        """`process_id`: as the table of workers has it, so that what it leaves is taken back once its end is noted."""
        self.id = process_id or new_id()
        self._database = database
        self._sender = sender
        self._lease_s = lease_s
        self._wake = wake
        self._flights: dict[UUID, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed_at = time.monotonic()
        self._finishes: MicroBatch[Finished, bool] = MicroBatch(self._finish_batch, FINISH_BATCH)

    async def __call__(self) -> int:
        """Claims what is due and starts it; answers how many."""
        await self._keep_leases()
        now = time.monotonic()
        slow = {flight.webhook_id for flight in self._flights.values() if now - flight.since > SLOW_S}
        deliveries, doubtful = await claim(self._database, self.id, self._room(now), slow, self._lease_s)
        for delivery in deliveries:
            self._flights[delivery.id] = Flight(
                delivery.webhook_id, time.monotonic(), delivery.webhook_id in doubtful
            )
            task = asyncio.create_task(self._deliver(delivery), name=f"delivery {delivery.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(deliveries)

    async def settle(self) -> None:
        """Waits until nothing is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self) -> None:
        """Gives what is under way a moment; the rest is due again at once, for another courier."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=END_S)
        left = set(self._tasks)
        await end(*left)
        await self._finishes.drain()
        if left:
            await take_back_lost(self._database, self.id)

    def _room(self, now: float) -> Room:
        flights = self._flights.values()
        doubtful = sum(flight.doubtful for flight in flights)
        fresh = sum(not flight.doubtful and now - flight.since <= SLOW_S for flight in flights)
        left = ALL - len(flights)
        return Room(sound=min(SOUND - fresh, left), doubtful=min(DOUBTFUL - doubtful, left))

    async def _keep_leases(self) -> None:
        if self._flights and time.monotonic() - self._renewed_at >= self._lease_s / 3:
            self._renewed_at = time.monotonic()
            await renew(self._database, self.id, list(self._flights), self._lease_s)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            sent = await self._sender.send(delivery)
            await self._record(Finished(delivery, sent, random.random()))
        except Exception:  # its lease ends, and it is sent again
            log.exception("A delivery broke", delivery=str(delivery.id))
        finally:
            self._flights.pop(delivery.id, None)
            if self._wake is not None:
                self._wake.set()

    async def _record(self, finished: Finished) -> None:
        """Tries for a lease while the database is away; after that another courier has sent it again."""
        until = time.monotonic() + self._lease_s
        while True:
            try:
                if not await self._finishes.do(finished):
                    log.warning("The end of an attempt came too late", delivery=str(finished.delivery.id))
                return
            except (SQLAlchemyError, OSError) as error:
                if time.monotonic() > until:
                    raise
                log.warning("The end of an attempt was not written", error=str(error)[:200])
                await asyncio.sleep(AGAIN_S)

    async def _finish_batch(self, batch: Sequence[Finished]) -> list[bool | BaseException]:
        return list(await finish(self._database, batch))
