"""Doorbells out of Redis Streams for many lanes: one reader per worker; redis-py itself is only met in `redis`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from worker.ending import end
from worker.queue.lanes import Lane
from worker.queue.pulls import LanePull, Request

if TYPE_CHECKING:
    from worker.queue.redis import RedisJobBroker

log = structlog.get_logger(__name__)

BLOCK_MS = 2000
"""How long one read waits for doorbells; what was asked for and is not needed any more ends with it."""
RECLAIM_EVERY_S = 5.0
RECLAIM_IDLE_MS = 30_000
"""A doorbell that nobody answered for this long is somebody else's: answers come right after the claim."""
FORGET_IDLE_MS = 600_000
RETRY_S = 0.25
CLOSE_S = 3.0

Fetch = Callable[[dict[str, int]], Awaitable[list[bytes]]]
"""Streams and how many of each at most -> what came of each, packed."""


class RedisDelivery:
    """A doorbell and the stream entry that is answered."""

    __slots__ = ("_answers", "_entry", "arrived", "job_id", "lane")

    def __init__(self, job_id: UUID, lane: Lane, entry: str, answers: Answers) -> None:
        self.job_id = job_id
        self.lane = lane
        self.arrived = time.monotonic()
        self._entry = entry
        self._answers = answers

    async def ack(self) -> None:
        self._answers.ack(self.lane, self._entry)

    async def nak(self, delay_s: float = 0.0) -> None:
        self._answers.nak(self.lane, self._entry, delay_s)


class Answers:
    """Sends answers in batches: a batch is what came while the one before was under way. Lost ones cost a reclaim."""

    def __init__(self, broker: RedisJobBroker) -> None:
        self._broker = broker
        self._acks: dict[Lane, list[str]] = {}
        self._naks: dict[Lane, list[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    def ack(self, lane: Lane, entry: str) -> None:
        self._acks.setdefault(lane, []).append(entry)
        self._send()

    def nak(self, lane: Lane, entry: str, delay_s: float) -> None:
        """Until its time has come it stays in the hands of this consumer; if this process ends, it is reclaimed."""
        if not delay_s:
            self._naks.setdefault(lane, []).append(entry)
            self._send()
            return

        def due() -> None:
            self._timers.discard(timer)
            self.nak(lane, entry, 0.0)

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    async def settle(self) -> None:
        """Waits until what was answered is sent."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.settle(), CLOSE_S)

    def _send(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="redis: answers")

    async def _work(self) -> None:
        try:
            while self._acks or self._naks:
                acks, self._acks = self._acks, {}
                naks, self._naks = self._naks, {}
                try:
                    for lane, entries in acks.items():
                        await self._broker.ack(lane, entries)
                    for lane, entries in naks.items():
                        await self._broker.give_back(lane, entries)
                except self._broker.trouble as error:
                    log.debug("Answers to doorbells were lost", error=repr(error))
        finally:
            self._task = None


class RedisPulls:
    """Requests for many lanes, answered by one reader on a connection of its own.

    A read that waits looks at the lanes that had asked when it began. Who asks later wakes it (CLIENT UNBLOCK), since
    giving the connection up would lose what is on its way.
    """

    def __init__(self, broker: RedisJobBroker, answers: Answers, listened: set[Lane]) -> None:
        """`listened` gathers every lane that this process was a consumer of."""
        self._broker = broker
        self._answers = answers
        self._listened = listened
        self._reader = broker.new_reader()
        self._lanes: dict[str, LanePull] = {}
        self._asked: dict[LanePull, int] = {}
        self._blocked: frozenset[LanePull] | None = None
        """The lanes of the read that waits now."""
        self._news = asyncio.Event()
        self._nudger: asyncio.Task[None] | None = None
        self._reclaimed_at: dict[LanePull, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._trouble = ""
        self._heard: Callable[[], None] = lambda: None
        self.ready = False
        """Whether asking makes sense: connected, with all consumer groups in place."""

    def open(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._task = asyncio.create_task(self._keep_reading(), name="redis: reader")

    def add(self, lanes: Sequence[LanePull]) -> None:
        if lanes:
            self._lanes |= {self._broker.stream_of(pull.lane): pull for pull in lanes}
            self._listened |= {pull.lane for pull in lanes}
            self.ready = False
            self._look_up()

    async def ask(self, pull: LanePull, request: Request) -> None:
        self._asked[pull] = request.batch
        self._look_up()

    async def close(self) -> None:
        """Ends the reader in order: what is on its way still arrives and can be given back."""
        self._closing = True
        self._look_up()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_S if self._broker.connected else 0)
            await end(self._task)
        if self._nudger is not None:
            self._nudger.cancel()
        await self._reader.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answers.settle(), CLOSE_S)

    # Reading

    async def _keep_reading(self) -> None:
        while not self._closing:
            try:
                while not self._closing:
                    if not self.ready:
                        await self._set_up()
                    await self._round()
            except Exception as error:  # also what redis-py gets wrong when a connection dies under it
                self.ready = False
                self._end_requests(list(self._lanes.values()))
                if not isinstance(error, self._broker.trouble):
                    log.exception("The reader of doorbells begins anew")
                elif self._broker.connected and self._trouble != str(error):
                    log.info("The lanes of doorbells are made again", reason=str(error))
                self._trouble = str(error)
                self._broker.link.doubt()
                await asyncio.sleep(RETRY_S)

    async def _set_up(self) -> None:
        while not self.ready:
            lanes = [pull.lane for pull in self._lanes.values()]
            await self._reader.connect(lanes)
            self.ready = len(lanes) == len(self._lanes)  # else lanes were added meanwhile
        self._heard()

    async def _round(self) -> None:
        """What is there at once; else what comes within a while."""
        if not self._asked:
            self._news.clear()
            await self._news.wait()
            return
        found = await self._reclaim() + await self._take()
        if found:
            self._heard()
            await asyncio.sleep(0)  # who was woken asks for more before the next read begins
        elif self._asked and self.ready and not self._closing:
            await self._wait()

    async def _take(self) -> int:
        return await self._fetch(self._reader.take, dict(self._asked))

    async def _reclaim(self) -> int:
        """What dead workers were handed and never answered."""
        now = time.monotonic()
        due = {
            pull: count
            for pull, count in self._asked.items()
            if now - self._reclaimed_at.get(pull, 0.0) >= RECLAIM_EVERY_S
        }
        self._reclaimed_at |= dict.fromkeys(due, now)
        return await self._fetch(self._reader.reclaim, due)

    async def _fetch(self, fetch: Fetch, wanted: dict[LanePull, int]) -> int:
        if not wanted:
            return 0
        found = await fetch({self._broker.stream_of(pull.lane): count for pull, count in wanted.items()})
        return sum(self._received(pull, packed) for pull, packed in zip(wanted, found, strict=True))

    async def _wait(self) -> None:
        waits_for = frozenset(self._asked)
        streams = [self._broker.stream_of(pull.lane) for pull in waits_for]
        self._blocked = waits_for
        try:
            found = await self._reader.wait(streams, min(self._asked.values()))
        finally:
            self._blocked = None
        self._trouble = ""
        for stream, entries in found:
            for entry, job_id in entries:
                self._bell(self._lanes[stream], entry, job_id)
        if not found:
            self._end_requests(list(waits_for))
        for pull in self._asked:
            pull.alive()
        self._heard()
        await asyncio.sleep(0)

    def _received(self, pull: LanePull, packed: bytes) -> int:
        entries = packed.decode().split(",") if packed else []
        for one in entries:
            entry, _, job_id = one.partition(" ")
            self._bell(pull, entry, job_id)
        return len(entries)

    def _bell(self, pull: LanePull, entry: str, job_id: str) -> None:
        try:
            delivery = RedisDelivery(UUID(job_id), pull.lane, entry, self._answers)
        except ValueError:
            log.warning("An entry that is no doorbell was thrown away", lane=str(pull.lane), entry=entry)
            self._answers.ack(pull.lane, entry)
            return
        self._asked[pull] = self._asked.get(pull, 0) - 1
        if self._asked[pull] <= 0:
            del self._asked[pull]
        pull.received(delivery)

    def _end_requests(self, pulls: Sequence[LanePull]) -> None:
        for pull in pulls:
            self._asked.pop(pull, None)
            pull.ended()

    # Waking

    def _look_up(self) -> None:
        self._news.set()
        if self._blocked is not None and (self._nudger is None or self._nudger.done()):
            self._nudger = asyncio.create_task(self._nudge(), name="redis: nudge")

    async def _nudge(self) -> None:
        """The read may not have reached the server yet: again, until it is over or looks where it should."""
        while self._blocked is not None and (
            self._closing or not self.ready or not self._asked.keys() <= self._blocked
        ):
            if not await self._reader.unblock():
                await asyncio.sleep(0.005)
