"""When a worker asks for doorbells, how many, and what it gives back: the part of a pull transport that is arithmetic."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.queue.lanes import Lane
from worker.queue.port import Delivery, Free, Order

LEAST = 10
"""Fewer per request make a long work-queue stream expensive: a batch of one costs the server 1 ms of CPU."""
MOST = 256
HOLD_S = 1.0
SETTLE_S = 0.01
"""How long a higher lane may take to answer before a lower lane's doorbells go first."""


@dataclass(frozen=True, slots=True)
class Request:
    """One pull request: ends with its batch delivered, or after `expires_s`."""

    number: int
    batch: int
    expires_s: float = 30.0
    heartbeat_s: float = 3.0


class HeldDelivery(Delivery, Protocol):
    arrived: float


class Pulls(Protocol):
    """The wire below: sends requests, and feeds what comes back into the `LanePull`s."""

    @property
    def ready(self) -> bool: ...
    def open(self, heard: Callable[[], None]) -> None: ...
    def add(self, lanes: Sequence[LanePull]) -> None: ...
    async def ask(self, pull: LanePull, request: Request) -> None: ...
    async def close(self) -> None: ...


class LanePull:
    """One lane's request under way and the doorbells that came.

    What may be held is what a slot is free for, or what was taken within the last second, whichever is more: a worker
    with short jobs reads ahead, one whose slots are taken for minutes holds nothing that another could use.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.number = 0
        self.bells: deque[HeldDelivery] = deque()
        self._outstanding = 0
        self._asked_at = 0.0
        self._seen_at = 0.0
        self._second = 0
        self._taken_now = 0
        self._taken_before = 0

    def need(self, free: int, now: float) -> int:
        return min(MOST, max(free, self._taken_lately(now)))

    def request(self, free: int, now: float) -> Request | None:
        """The next request, if one is due."""
        if self._outstanding > 0 and now - self._seen_at > 7:
            self._outstanding = 0  # two heartbeats are missing: the server forgot it
        need = self.need(free, now)
        if self._outstanding > 0 or need == 0 or len(self.bells) * 2 > need:
            return None
        self.number += 1
        self._outstanding = batch = max(LEAST, need - len(self.bells))
        self._asked_at = self._seen_at = now
        return Request(self.number, batch)

    def settled(self, now: float) -> bool:
        """Whether this lane would have said by now if it had something."""
        return bool(self.bells) or self._outstanding == 0 or now - self._asked_at >= SETTLE_S

    def received(self, bell: HeldDelivery) -> None:
        self._outstanding = max(0, self._outstanding - 1)
        self._seen_at = time.monotonic()
        self.bells.append(bell)

    def alive(self) -> None:
        self._seen_at = time.monotonic()

    def ended(self) -> None:
        self._outstanding = 0

    def take(self, now: float) -> HeldDelivery:
        self._roll(now)
        self._taken_now += 1
        return self.bells.popleft()

    def surplus(self, free: int, now: float) -> list[HeldDelivery]:
        """What is to be given back: the newest beyond the need, and what has been held for too long."""
        given: list[HeldDelivery] = []
        need = self.need(free, now)
        while len(self.bells) > need:
            given.append(self.bells.pop())
        while self.bells and now - self.bells[0].arrived > HOLD_S and free == 0:
            given.append(self.bells.popleft())
        return given

    def _taken_lately(self, now: float) -> int:
        self._roll(now)
        return max(self._taken_now, self._taken_before)

    def _roll(self, now: float) -> None:
        if int(now) != self._second:
            self._taken_before = self._taken_now if int(now) == self._second + 1 else 0
            self._taken_now, self._second = 0, int(now)


class PullListener:
    """Keeps every lane asked, hands out in the lanes' order, gives the surplus back."""

    def __init__(self, pulls: Pulls, lanes: Sequence[Lane], free: Free, order: Order) -> None:
        self._pulls = pulls
        self._free = free
        self._order = order
        self._wake = asyncio.Event()
        self._by_lane: dict[Lane, LanePull] = {}
        pulls.open(self.wake)
        self.add(lanes)

    async def take(self) -> list[Delivery]:
        while True:
            now = time.monotonic()
            taken, wait_s = self._ready(now)
            await self._give_back(now, len(taken))
            await self._ask(now, len(taken))
            if taken:
                return taken
            await self._sleep(wait_s)

    def wake(self) -> None:
        self._wake.set()

    def add(self, lanes: Sequence[Lane]) -> None:
        new = {lane: LanePull(lane) for lane in lanes if lane not in self._by_lane}
        self._by_lane |= new
        self._pulls.add(list(new.values()))

    async def close(self) -> None:
        await self._pulls.close()  # first: what is given back must not come to a request of mine
        for pull in self._by_lane.values():
            for bell in pull.bells:
                await bell.nak()
            pull.bells.clear()

    def _ready(self, now: float) -> tuple[list[Delivery], float]:
        """What can start now, and else how long to wait for it without a sign."""
        taken: list[Delivery] = []
        for lane in self._order():
            pull = self._by_lane[lane]
            while pull.bells and self._free(lane) > len(taken):
                taken.append(pull.take(now))
            if not pull.settled(now) and self._pulls.ready:
                return taken, SETTLE_S
        return taken, HOLD_S

    async def _give_back(self, now: float, taken: int) -> None:
        for lane, pull in self._by_lane.items():
            for bell in pull.surplus(max(0, self._free(lane) - taken), now):
                await bell.nak()

    async def _ask(self, now: float, taken: int) -> None:
        if not self._pulls.ready:
            return
        for lane, pull in self._by_lane.items():
            if request := pull.request(max(0, self._free(lane) - taken), now):
                await self._pulls.ask(pull, request)

    async def _sleep(self, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()
