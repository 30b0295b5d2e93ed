"""RedisEventBusAdapter: the event bus on one Redis Stream, `<prefix>:bus`; a durable name is a consumer group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from worker.db.base import new_id
from worker.ending import end
from worker.errors import BusAway
from worker.events.handling import Handling, check_subscription, delay_s, message_of
from worker.events.port import ACK_WAIT_S, KEPT_FOR, MAX_DELIVERIES, Handler, Message
from worker.events.types import BaseEvent

log = structlog.get_logger(__name__)

BATCH = 64
AT_ONCE = 100
BLOCK_S = 2.0
REPEATS_S = 120
TROUBLE = (RedisError, OSError)

PUBLISH = """
if ARGV[1] ~= '' and not redis.call('SET', KEYS[3] .. ARGV[1], '1', 'NX', 'EX', ARGV[5]) then return 0 end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('SET', KEYS[2], string.format('%.0f', ms), 'NX')
local oldest = string.format('%.0f', ms - ARGV[4])
redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'topic', ARGV[2], 'events', ARGV[3], 'recorded', ARGV[6])
return 1
"""
"""Adds a message unless its id was seen, drops what is too old, and notes when the stream began."""


class RedisEventBusAdapter:
    """Needs the extra `redis`. Connections are made at the first use and again after each outage."""

    backend = "redis"

    def __init__(self, url: str, prefix: str = "framework", *, ack_wait_s: float = ACK_WAIT_S) -> None:
        self.stream = f"{prefix}:bus"
        self.ack_wait_s = ack_wait_s
        self.connected = False
        self._client = Redis.from_url(url, socket_connect_timeout=2, socket_timeout=BLOCK_S + 3)
        self._publish = self._client.register_script(PUBLISH)
        self._subscriptions: set[RedisSubscription] = set()

    async def start(self) -> None:
        """Nothing is opened before somebody publishes or subscribes."""

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in tuple(self._subscriptions)))
        with contextlib.suppress(*TROUBLE):
            await self._client.aclose()

    async def publish(self, topic: str, event: BaseEvent | Sequence[BaseEvent]) -> None:
        await self.publish_many([message_of(topic, event)])

    async def publish_many(self, messages: Sequence[Message]) -> None:
        try:
            for start in range(0, len(messages), AT_ONCE):
                await self._add(messages[start : start + AT_ONCE])
        except TROUBLE as error:
            self.connected = False
            raise BusAway(detail=str(error) or type(error).__name__) from error
        self.connected = True

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        since: datetime | None = None,
        foreign: bool = False,
    ) -> RedisSubscription:
        check_subscription(pattern, durable, since)
        subscription = RedisSubscription(
            self, self._client, Handling(pattern, handler, foreign), durable, since
        )
        self._subscriptions.add(subscription)
        await subscription.start()
        return subscription

    async def born(self) -> datetime:
        try:
            at = await self._client.get(f"{self.stream}:born")
            if at is None:
                seconds, micros = await self._client.time()
                await self._client.set(f"{self.stream}:born", seconds * 1000 + micros // 1000, nx=True)
                at = await self._client.get(f"{self.stream}:born")
        except TROUBLE as error:
            self.connected = False
            raise BusAway(detail=str(error) or type(error).__name__) from error
        self.connected = True
        return datetime.fromtimestamp(int(at or 0) / 1000, UTC)

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {"backend": self.backend, "connected": self.connected}
        with contextlib.suppress(*TROUBLE):
            length = await self._client.xlen(self.stream)
            found |= {"connected": True, "stream": {"name": self.stream, "messages": length}}
        return found

    def forget(self, subscription: RedisSubscription) -> None:
        self._subscriptions.discard(subscription)

    async def _add(self, messages: Sequence[Message]) -> None:
        keys = [self.stream, f"{self.stream}:born", f"{self.stream}:id:"]
        kept_ms = int(KEPT_FOR.total_seconds() * 1000)
        async with self._client.pipeline(transaction=False) as pipe:
            for each in messages:
                arguments: list[Any] = [
                    each.message_id,
                    each.topic,
                    each.data,
                    kept_ms,
                    REPEATS_S,
                    int(each.recorded),
                ]
                await self._publish(keys=keys, args=arguments, client=pipe)
            await pipe.execute()


class RedisSubscription:
    """Reads the stream; with a name as one consumer of its group, and takes over what others left unfinished."""

    def __init__(
        self,
        bus: RedisEventBusAdapter,
        client: Any,
        handling: Handling,
        durable: str | None,
        since: datetime | None,
    ) -> None:
        self._bus = bus
        self._client = client
        self._handling = handling
        self._group = durable
        self._since = since
        self._consumer = new_id().hex
        self._position = ""
        """The id of the last entry that was read; empty before the place is fixed."""
        self._held: set[bytes] = set()
        self._later: dict[bytes, float] = {}
        """Entries that failed, and when they may be tried again."""
        self._placed = asyncio.Event()
        self._called_ms = int(time.time() * 1000)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        name = f"events: {self._handling.pattern}"
        self._tasks = [asyncio.create_task(self._run(), name=name)]
        if self._group:
            self._tasks.append(asyncio.create_task(self._touch(), name=f"{name}: touch"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._placed.wait(), 2)

    async def stop(self) -> None:
        self._bus.forget(self)
        await end(*self._tasks)

    async def _run(self) -> None:
        read = self._read_group if self._group else self._read
        claimed_at = 0.0
        while True:
            try:
                if not self._position:
                    await self._place()
                    self._placed.set()
                if self._group and time.monotonic() - claimed_at > self._bus.ack_wait_s / 2:
                    await self._take_over()
                    claimed_at = time.monotonic()
                for number, fields in await read():
                    await self._handle(number, fields, 1)
                self._bus.connected = True
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._make_group("0")  # the server lost everything: what is there now is new
            except TROUBLE as error:
                self._bus.connected = False
                log.debug("A subscription to events waits for the broker", error=repr(error))
                await asyncio.sleep(0.3)

    # The place

    async def _place(self) -> None:
        """Fixes where to begin. When the server was away at first, by the time of the call."""
        if self._since is not None:
            position = f"{int(self._since.timestamp() * 1000) - 1}"
        elif time.time() * 1000 - self._called_ms > 2000:
            position = f"{self._called_ms - 1}"
        else:
            newest = await self._client.xrevrange(self._bus.stream, count=1)
            position = newest[0][0].decode() if newest else "0"
        if self._group:
            await self._make_group(position)
        self._position = position

    async def _make_group(self, position: str) -> None:
        try:
            await self._client.xgroup_create(self._bus.stream, self._group, position, mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    # The messages

    async def _read(self) -> list[tuple[bytes, Any]]:
        found = await self._client.xread({self._bus.stream: self._position}, BATCH, int(BLOCK_S * 1000))
        return found[0][1] if found else []

    async def _read_group(self) -> list[tuple[bytes, Any]]:
        block_ms = int(min(BLOCK_S, self._bus.ack_wait_s / 2) * 1000)
        found = await self._client.xreadgroup(
            self._group, self._consumer, {self._bus.stream: ">"}, BATCH, block_ms
        )
        entries: list[tuple[bytes, Any]] = found[0][1] if found else []
        self._held.update(number for number, _ in entries)
        return entries

    async def _take_over(self) -> None:
        """What was not finished within the wait, one's own failures included, is handed over again."""
        idle_ms = int(self._bus.ack_wait_s * 1000)
        for each in await self._client.xpending_range(
            self._bus.stream, self._group, "-", "+", BATCH, idle=idle_ms
        ):
            number = each["message_id"]
            if self._later.get(number, 0) > time.monotonic():
                continue
            taken = await self._client.xclaim(
                self._bus.stream, self._group, self._consumer, idle_ms, [number]
            )
            for taken_number, fields in taken:
                if fields:
                    self._held.add(taken_number)
                    await self._handle(taken_number, fields, int(each["times_delivered"]) + 1)

    async def _handle(self, number: bytes, fields: dict[bytes, bytes], deliveries: int) -> None:
        topic = fields.get(b"topic", b"").decode(errors="replace")
        try:
            handled = await self._handling.handle(
                topic, fields.get(b"events", b""), fields.get(b"recorded") == b"1"
            )
        finally:
            self._held.discard(number)
        self._position = number.decode()
        if self._group is None:
            if not handled:
                log.warning("An event was not handled and has no name to come again for", topic=topic)
            return
        if not handled and deliveries < MAX_DELIVERIES:
            self._later[number] = time.monotonic() + delay_s(deliveries)
            return
        if not handled:
            self._handling.give_up(topic, deliveries)
        self._later.pop(number, None)
        await self._client.xack(self._bus.stream, self._group, number)

    async def _touch(self) -> None:
        """Tells the server that what was taken is still being worked on."""
        while True:
            await asyncio.sleep(self._bus.ack_wait_s / 3)
            if not self._held:
                continue
            with contextlib.suppress(*TROUBLE):
                held = list(self._held)
                await self._client.xclaim(self._bus.stream, self._group, self._consumer, 0, held, justid=True)
