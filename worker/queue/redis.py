"""Doorbells on Redis Streams: one stream per queue and lane, one consumer group, acknowledged entries deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import OutOfMemoryError, ResponseError
from taskiq import BrokerMessage
from taskiq_redis import RedisStreamBroker

from worker.connections.redis import (
    TROUBLE,
    RedisLink,
    RedisSubscription,
    address_of,
    connection_options,
    make_pool,
)
from worker.db.session import Doorbell
from worker.queue import redis_scripts as scripts
from worker.queue.broker import JobBroker
from worker.queue.lanes import BANDS, RESCUE, Lane, lane_of
from worker.queue.port import Free, Order, SignalHandler
from worker.queue.pulls import PullListener
from worker.queue.redis_pulls import BLOCK_MS, FORGET_IDLE_MS, RECLAIM_IDLE_MS, Answers, RedisPulls

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 1.0
GROUP = "workers"
MOST_WAITING = 1_000_000
"""Doorbells of one lane. With that many waiting nobody is idle, and polls find the jobs that nobody rang for."""
PER_COMMAND = 1000


class RedisJobBroker(JobBroker, RedisStreamBroker):
    """taskiq-redis' stream broker with what it lacks: lanes, answers other than yes, and it survives its server.

    It owns the connections; the messages are doorbells (see `RedisDoorbells`), because jobs are rows.
    """

    trouble = TROUBLE

    def __init__(self, url: str, prefix: str = "framework") -> None:
        RedisStreamBroker.__init__(
            self,
            url,
            queue_name=f"{prefix}:jobs",
            max_connection_pool_size=10,
            consumer_group_name=GROUP,
            consumer_name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}",
            **connection_options(),
        )
        self.prepare()
        self.prefix = prefix
        self.link = RedisLink(self.connection_pool, address_of(url))
        self._url = url
        self._ring, self._ack, self._give_back, self._leave, self._count = (
            self.link.client.register_script(text)
            for text in (scripts.RING, scripts.ACK, scripts.GIVE_BACK, scripts.LEAVE, scripts.COUNT)
        )

    @property
    def connected(self) -> bool:
        return self.link.connected

    async def startup(self) -> None:
        """Returns at once; a missing server delays doorbells, not the start."""
        await JobBroker.startup(self)
        await self.link.start()

    async def shutdown(self) -> None:
        await self.link.stop()
        await JobBroker.shutdown(self)

    async def kick(self, message: BrokerMessage) -> None:
        await JobBroker.kick(self, message)

    def listen(self) -> Any:
        return JobBroker.listen(self)

    def stream_of(self, lane: Lane) -> str:
        return f"{self.queue_name}:{lane.queue}:{lane.name}"

    def new_reader(self) -> RedisReader:
        return RedisReader(self, self._url)

    async def ring(self, lane: Lane, job_ids: Sequence[str]) -> int:
        """Answers how many were refused because too many wait."""
        keys = [self.stream_of(lane), self.queue_name]
        refused = 0
        for part in _parts(job_ids):
            refused += await self._ring(keys, [MOST_WAITING, f"{lane.queue}:{lane.name}", *part])
        return refused

    async def ack(self, lane: Lane, entries: Sequence[str]) -> None:
        for part in _parts(entries):
            await self._ack([self.stream_of(lane)], [GROUP, *part])

    async def give_back(self, lane: Lane, entries: Sequence[str]) -> None:
        for part in _parts(entries):
            await self._give_back([self.stream_of(lane)], [GROUP, *part])

    async def leave(self, lanes: Iterable[Lane]) -> None:
        """Takes this process off the consumers of these lanes, where it owes no answer."""
        if streams := [self.stream_of(lane) for lane in lanes]:
            await self._leave(streams, [GROUP, self.consumer_name])

    async def counts(self) -> dict[Lane, list[int]]:
        """Of every lane that was ever rung or listened to: waiting, in hand, in hand again, bytes."""
        members: set[Any] = await self.link.client.smembers(self.queue_name)
        parts = sorted(member.decode(errors="replace").split(":") for member in members)
        lanes = [Lane(*part) for part in parts if len(part) == 2 and part[1] in (RESCUE, *BANDS)]
        if not lanes:
            return {}
        counts = await self._count([self.stream_of(lane) for lane in lanes], [GROUP])
        return dict(zip(lanes, counts, strict=True))


class RedisReader:
    """The commands of one `RedisPulls`, on a connection that nothing else waits for."""

    def __init__(self, broker: RedisJobBroker, url: str) -> None:
        self._broker = broker
        self._client: Redis = Redis(connection_pool=make_pool(url, 1), single_connection_client=True)
        self._take: AsyncScript = self._client.register_script(scripts.TAKE)
        self._reclaim: AsyncScript = self._client.register_script(scripts.RECLAIM)
        self._id = 0

    async def connect(self, lanes: Sequence[Lane]) -> None:
        """(Re)creates what the server lacks of these lanes. A full one refuses that even where it lacks nothing."""
        self._id = await self._client.client_id()
        names = [f"{lane.queue}:{lane.name}" for lane in lanes]
        with contextlib.suppress(OutOfMemoryError):
            for lane in lanes:
                await self._create_group(self._broker.stream_of(lane))
            if names:
                await self._client.sadd(self._broker.queue_name, *names)

    async def take(self, streams: dict[str, int]) -> list[bytes]:
        """What is there, at most so many of each stream, each stream's packed into one string."""
        args: list[Any] = [GROUP, self._broker.consumer_name, *streams.values()]
        found: list[bytes] = await self._take(list(streams), args)
        return found

    async def reclaim(self, streams: dict[str, int]) -> list[bytes]:
        """What others took long ago and never answered; as `take`."""
        args: list[Any] = [GROUP, self._broker.consumer_name, RECLAIM_IDLE_MS, FORGET_IDLE_MS]
        found: list[bytes] = await self._reclaim(list(streams), [*args, *streams.values()])
        return found

    async def wait(self, streams: Sequence[str], count: int) -> list[tuple[str, list[tuple[str, str]]]]:
        """The first to come, at most `count` of a stream; nothing after a while or when unblocked."""
        found: Any = await self._client.xreadgroup(
            GROUP, str(self._broker.consumer_name), dict.fromkeys(streams, ">"), count=count, block=BLOCK_MS
        )
        return [
            (
                stream.decode(),
                [
                    (entry.decode(), fields.get(b"id", b"").decode(errors="replace"))
                    for entry, fields in entries
                ],
            )
            for stream, entries in found or ()
        ]

    async def unblock(self) -> bool:
        """Ends the read that waits; whether there was one."""
        try:
            return bool(await self._broker.link.client.client_unblock(self._id))
        except TROUBLE as error:
            log.debug("A read could not be woken; it ends by itself", error=str(error))
            await asyncio.sleep(BLOCK_MS / 1000)
            return False

    async def close(self) -> None:
        with contextlib.suppress(*TROUBLE):
            await self._client.aclose(close_connection_pool=True)

    async def _create_group(self, stream: str) -> None:
        try:
            await self._client.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # it is there already
                raise


class RedisDoorbells:
    """Rings, hears and signals over the connections of a `RedisJobBroker`."""

    backend = "redis"

    def __init__(self, broker: RedisJobBroker, url: str) -> None:
        self.broker = broker
        self._answers = Answers(broker)
        self._lanes: set[Lane] = set()
        self._handlers: dict[str, SignalHandler] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._signals = RedisSubscription(url, self._signalled)

    @property
    def connected(self) -> bool:
        return self.broker.connected

    async def start(self) -> None:
        await self.broker.startup()

    async def stop(self) -> None:
        await self._answers.stop()
        if self.connected:
            with contextlib.suppress(*TROUBLE):
                await asyncio.wait_for(self.broker.leave(self._lanes), ANSWER_TIMEOUT_S)
        await self._signals.stop()
        await self.broker.shutdown()

    async def ring(self, bells: Sequence[Doorbell]) -> None:
        if not self.connected or not bells:
            return
        by_lane: dict[Lane, list[str]] = {}
        for bell in bells:
            by_lane.setdefault(lane_of(bell), []).append(str(bell.job_id))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                refused = sum([await self.broker.ring(lane, ids) for lane, ids in by_lane.items()])
        except TROUBLE as error:
            self.broker.link.doubt()
            log.warning(
                "Redis did not confirm doorbells; polls find the jobs", count=len(bells), error=repr(error)
            )
        else:
            if refused:
                log.warning("Too many doorbells wait; polls find the jobs", refused=refused)

    def listen(self, lanes: Sequence[Lane], free: Free, order: Order | None = None) -> PullListener:
        pulls = RedisPulls(self.broker, self._answers, self._lanes)
        return PullListener(pulls, lanes, free, order or (lambda: lanes))

    async def signal(self, worker_id: UUID, message: dict[str, Any]) -> None:
        if not self.connected:
            return
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self.broker.link.client.publish(
                    self._control(worker_id), json.dumps(message, default=str)
                )
        except TROUBLE as error:
            log.warning("A control message was not sent", worker_id=str(worker_id), error=repr(error))

    def on_signal(self, worker_id: UUID, handler: SignalHandler) -> None:
        self._handlers[self._control(worker_id)] = handler
        self._signals.add(self._control(worker_id))

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "backend": self.backend,
            "connected": self.connected,
            "url": self.broker.link.address,
            "consumers": [],
        }
        if not self.connected:
            return found
        with contextlib.suppress(*TROUBLE):
            counts = await self.broker.counts()
            found["consumers"] = [
                {
                    "queue": lane.queue,
                    "lane": lane.name,
                    "pending": waiting,
                    "ack_pending": held,
                    "redelivered": again,
                }
                for lane, (waiting, held, again, _) in counts.items()
            ]
            found |= _facts(await self.broker.link.client.info())
            found["stream"] = {
                "name": self.broker.queue_name,
                "messages": sum(waiting + held for waiting, held, _, _ in counts.values()),
                "bytes": sum(count[3] for count in counts.values()),
            }
        return found

    def _signalled(self, channel: str, data: bytes) -> None:
        task = asyncio.create_task(self._handle(channel, data))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, channel: str, data: bytes) -> None:
        try:
            await self._handlers[channel](json.loads(data))
        except Exception:
            log.exception("A control message could not be handled", channel=channel)

    def _control(self, worker_id: UUID) -> str:
        return f"{self.broker.prefix}:ctl:{worker_id}"


def _facts(info: dict[str, Any]) -> dict[str, Any]:
    """What people want to know of the server: its version, and what it would lose."""
    keeps = "AOF on" if info.get("aof_enabled") else "AOF off"
    return {
        "product": "Valkey" if "valkey_version" in info else "Redis",
        "version": str(info.get("valkey_version") or info.get("redis_version") or ""),
        "sync": f"{keeps}, maxmemory-policy {info.get('maxmemory_policy', 'unknown')}",
        "server": {
            "appendonly": bool(info.get("aof_enabled")),
            "maxmemory": int(info.get("maxmemory", 0)),
            "maxmemory_policy": str(info.get("maxmemory_policy", "unknown")),
            "redis_version": str(info.get("redis_version", "")),
        },
    }


def _parts(items: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(items), PER_COMMAND):
        yield items[start : start + PER_COMMAND]
