"""Redis for all adapters: one pool that is watched, and subscriptions that come back after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from worker.ending import end

log = structlog.get_logger(__name__)

TROUBLE = (RedisError, OSError)
"""What a server that is away, full or wiped makes redis-py raise; asyncio's timeouts are OSErrors."""
SOCKET_TIMEOUT_S = 5.0
"""Longer than any blocking read takes, short enough to find a server that hangs within seven seconds."""
PING_EVERY_S = 2.5
PING_TIMEOUT_S = 3.0
RETRY_S = 0.25

Heard = Callable[[str, bytes], None]


def connection_options() -> dict[str, Any]:
    """How every connection is made. Nothing is tried twice below us: whoever asks knows whether it is worth it."""
    return {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "protocol": 2,  # 3 brings nothing here but a longer greeting
        "retry": Retry(NoBackoff(), 0),
        "timeout": 2.0,
    }


def make_pool(url: str, most: int = 10) -> BlockingConnectionPool:
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url, max_connections=most, **connection_options()
    )
    return pool


def address_of(url: str) -> str:
    """The URL as it may be shown and logged: without user, password and options."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    database = parts.path.strip("/") or "".join(parse_qs(parts.query).get("db", [])) or "0"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 6379}/{database}"


class RedisLink:
    """A pool of connections and whether the server answers on it, asked every few seconds.

    Commands fail by themselves when it does not; `connected` spares callers that must not wait the attempt.
    """

    def __init__(self, pool: BlockingConnectionPool, address: str) -> None:
        self.pool = pool
        self.client: Redis = Redis(connection_pool=pool)
        self.address = address
        self.answered = asyncio.Event()
        """Set while it answers."""
        self._keeper: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()

    @classmethod
    def to(cls, url: str, most: int = 10) -> RedisLink:
        return cls(make_pool(url, most), address_of(url))

    @property
    def connected(self) -> bool:
        return self.answered.is_set()

    async def start(self) -> None:
        """Returns at once; a missing server is waited for in the background."""
        self._keeper = asyncio.create_task(self._keep(), name="redis connection")

    async def stop(self) -> None:
        await end(self._keeper)
        self.answered.clear()
        with contextlib.suppress(*TROUBLE):
            await self.pool.disconnect()

    def doubt(self) -> None:
        """Somebody got no answer: ask now rather than at the next turn."""
        self._doubted.set()

    async def _keep(self) -> None:
        refused = ""
        while True:
            error = await self._ask()
            if error is None and not self.connected:
                log.info("Connected to Redis", redis=self.address)
            elif error is not None and (self.connected or refused != error):
                log.warning("Redis does not answer", redis=self.address, error=error)
            refused = error or ""
            self.answered.set() if error is None else self.answered.clear()
            self._doubted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_EVERY_S if self.connected else RETRY_S):
                    await self._doubted.wait()

    async def _ask(self) -> str | None:
        """None when it answers, else what is wrong."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self.client.ping()
        except Exception as error:  # whatever it is, this loop goes on: nobody else would notice its end
            return str(error) or type(error).__name__
        return None


class RedisSubscription:
    """Hears channels for ever. After an outage it begins anew and says so: messages were missed."""

    def __init__(self, url: str, heard: Heard, resumed: Callable[[], None] = lambda: None) -> None:
        self._client: Redis = Redis(connection_pool=make_pool(url, 1))
        self._heard = heard
        self._resumed = resumed
        self._channels: set[str] = set()
        self._pubsub: Any = None
        self._task: asyncio.Task[None] | None = None
        self._adding: set[asyncio.Task[None]] = set()
        self.confirmed = asyncio.Event()
        """Set while the server has confirmed it and was alive a moment ago."""

    def add(self, channel: str) -> None:
        self._channels.add(channel)
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="redis subscription")
        elif self._pubsub is not None:
            task = asyncio.create_task(self._subscribe(channel))
            self._adding.add(task)
            task.add_done_callback(self._adding.discard)

    async def stop(self) -> None:
        await end(self._task, *self._adding)
        self.confirmed.clear()
        with contextlib.suppress(*TROUBLE):
            await self._client.connection_pool.disconnect()

    async def _keep(self) -> None:
        broken = False
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    await pubsub.subscribe(*self._channels)
                    self._pubsub = pubsub
                    await self._listen(pubsub, broken)
            except Exception as error:  # as above
                log.debug("A subscription broke", error=repr(error))
            finally:
                self._pubsub = None
                self.confirmed.clear()
            broken = True
            await asyncio.sleep(RETRY_S)

    async def _listen(self, pubsub: Any, broken: bool) -> None:
        """Until it breaks: an error, or a ping that nothing follows."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=PING_EVERY_S)
            if message is not None:
                asked = False
                if not self.confirmed.is_set():
                    self.confirmed.set()
                    if broken:
                        self._resumed()
                if message["type"] == "message":
                    self._heard(message["channel"].decode(), message["data"])
            elif asked:
                return
            else:
                await pubsub.ping()
                asked = True

    async def _subscribe(self, channel: str) -> None:
        with contextlib.suppress(*TROUBLE, AttributeError):  # it broke meanwhile: `_keep` subscribes to all
            await self._pubsub.subscribe(channel)
