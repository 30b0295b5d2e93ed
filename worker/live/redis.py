"""RedisSocketAdapter: the backplane on Redis pub/sub, one channel `<prefix>:live`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from worker.connections.redis import RETRY_S, RedisLink, RedisSubscription
from worker.ending import end
from worker.live.local import LocalHandlers
from worker.live.port import RESYNC, Message

log = structlog.get_logger(__name__)

MAX_BYTES = 512 * 1024
"""What is larger becomes RESYNC: re-reading costs less than such a message."""
MOST_WAITING = 1000
"""Messages on their way to a server that is slow to take them. More become one RESYNC."""
PER_BATCH = 100


class RedisSocketAdapter(LocalHandlers):
    """Own messages are handed over at once; the server's echo of them is known by the sender and dropped.

    Messages leave in order, by one writer in the background: nobody who broadcasts waits for Redis.
    """

    def __init__(self, url: str, prefix: str = "framework") -> None:
        super().__init__()
        self.channel = f"{prefix}:live"
        self._me = uuid4().hex
        self._resync = self._encoded(RESYNC, {})
        self._link = RedisLink.to(url, most=2)
        self._subscription = RedisSubscription(url, self._received, self._resumed)
        self._waiting: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()
        self._writer: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._link.connected and self._subscription.confirmed.is_set()

    async def start(self) -> None:
        self._writer = asyncio.create_task(self._write(), name="live backplane: writer")
        self._subscription.add(self.channel)
        await self._link.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._link.answered.wait()
                await self._subscription.confirmed.wait()

    async def stop(self) -> None:
        if self._writer is not None:
            if self.connected:
                await self._last_words()
            await end(self._writer)
        await self._subscription.stop()
        await self._link.stop()
        self._handlers.clear()

    async def broadcast(self, topic: str, message: Message) -> None:
        self.deliver(topic, message)
        data = self._encoded(topic, message)
        self._send(data if len(data) <= MAX_BYTES else self._resync)

    def _send(self, data: bytes) -> None:
        """What cannot leave now becomes one RESYNC when it can: the others re-read what they missed."""
        if not self.connected or len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            data = self._resync
        self._waiting.append(data)
        self._awake.set()
        self._sent.clear()

    async def _write(self) -> None:
        while True:
            await self._awake.wait()
            if not self.connected:
                await asyncio.sleep(RETRY_S)
                continue
            self._awake.clear()
            while self._waiting and await self._publish():
                pass
            if not self._waiting:
                self._sent.set()

    async def _publish(self) -> bool:
        """Sends the first of what waits; a failure leaves RESYNC in its place."""
        batch = list(itertools.islice(self._waiting, PER_BATCH))
        try:
            pipeline = self._link.client.pipeline(transaction=False)
            for data in batch:
                pipeline.publish(self.channel, data)
            await pipeline.execute()
        except Exception as error:  # the writer never ends: nobody else would notice
            log.warning("live_message_lost", count=len(self._waiting), error=repr(error))
            self._link.doubt()
            self._waiting.clear()
            self._send(self._resync)
            await asyncio.sleep(RETRY_S)
            return False
        for data in batch:
            if self._waiting and self._waiting[0] is data:  # else it all became one RESYNC meanwhile
                self._waiting.popleft()
        return True

    async def _last_words(self) -> None:
        """What was broadcast a moment ago still goes out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._sent.wait()

    def _received(self, _: str, data: bytes) -> None:
        """Whoever may publish here can only make us re-read: anything of another shape is dropped."""
        try:
            envelope: Any = msgspec.json.decode(data)
            topic, message = envelope["topic"], envelope["message"]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            log.debug("live_message_unreadable", channel=self.channel)
            return
        if envelope.get("from") != self._me and isinstance(topic, str) and isinstance(message, dict):
            self.deliver(topic, message)

    def _resumed(self) -> None:
        """Both sides missed something: the others what this process did, this process what they did."""
        self.deliver(RESYNC, {})
        self._send(self._resync)

    def _encoded(self, topic: str, message: Message) -> bytes:
        return msgspec.json.encode({"from": self._me, "topic": topic, "message": message})
