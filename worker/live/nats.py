"""NatsSocketAdapter: the backplane on core NATS, subjects `<prefix>.live.>`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from typing import Any

import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from worker.ending import end
from worker.live.local import LocalHandlers
from worker.live.port import RESYNC, Message

log = structlog.get_logger(__name__)

MAX_BYTES = 512 * 1024
"""Half of what a server takes by default. What is larger becomes RESYNC: re-reading costs less than such a message."""
_PLAIN = re.compile(r"^[A-Za-z0-9_-]+$")


class NatsSocketAdapter(LocalHandlers):
    """Own messages are handed over at once and not echoed by the server, so a desk stays live while the broker is away."""

    def __init__(self, url: str, prefix: str = "framework") -> None:
        super().__init__()
        self.url = url
        self.subject = f"{prefix}.live"
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._late = False

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def start(self) -> None:
        self._connecting = asyncio.create_task(self._connect(), name="live backplane: connect")
        await asyncio.wait({self._connecting}, timeout=1)
        self._late = not self._connecting.done()

    async def stop(self) -> None:
        await end(self._connecting)
        if self._client is not None and not self._client.is_closed:
            with contextlib.suppress(nats.errors.Error, OSError, asyncio.TimeoutError):
                await self._client.close()
        self._handlers.clear()

    async def broadcast(self, topic: str, message: Message) -> None:
        self.deliver(topic, message)
        data = msgspec.json.encode({"topic": topic, "message": message})
        if len(data) > MAX_BYTES:
            topic, data = RESYNC, _RESYNC_BYTES
        await self._publish(topic, data)

    async def _connect(self) -> None:
        """Takes as long as the broker needs to appear: nats-py tries for ever with these options."""
        client = Client()
        self._client = client
        await client.connect(
            self.url,
            name="m-desk live",
            no_echo=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # annotated int, used as seconds in asyncio.sleep
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            error_cb=self._failed,
            reconnected_cb=self._reconnected,
        )
        await client.subscribe(f"{self.subject}.>", cb=self._received)
        await round_trip(client)
        if self._late:  # nats-py tells of reconnections only
            await self._reconnected()

    async def _publish(self, topic: str, data: bytes) -> None:
        """While the broker is away this drops the message: RESYNC follows when it is back."""
        if self._client is None or not self._client.is_connected:
            return
        try:
            await self._client.publish(f"{self.subject}.{_subject_of(topic)}", data)
        except (nats.errors.Error, OSError, ValueError) as error:
            log.warning("live_message_lost", topic=topic, error=repr(error))

    async def _received(self, msg: Msg) -> None:
        """Whoever may publish here can only make us re-read: anything of another shape is dropped."""
        try:
            envelope: Any = msgspec.json.decode(msg.data)
            topic, message = envelope["topic"], envelope["message"]
        except (msgspec.DecodeError, KeyError, TypeError, IndexError):
            log.debug("live_message_unreadable", subject=msg.subject)
            return
        if isinstance(topic, str) and isinstance(message, dict):
            self.deliver(topic, message)

    async def _reconnected(self) -> None:
        """Both sides missed something: the others what this process did, this process what they did."""
        self.deliver(RESYNC, {})
        await self._publish(RESYNC, _RESYNC_BYTES)

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self.deliver(RESYNC, {})
        log.debug("live_backplane_error", error=repr(error))


_RESYNC_BYTES = msgspec.json.encode({"topic": RESYNC, "message": {}})


def _subject_of(topic: str) -> str:
    """Each word as one subject token; a word with anything special in it is base64url, so it cannot be a wildcard."""
    return ".".join(word if _PLAIN.match(word) else _encoded(word) for word in topic.split("."))


def _encoded(word: str) -> str:
    return "b64_" + base64.urlsafe_b64encode(word.encode("utf-8", "surrogatepass")).decode().rstrip("=")


async def round_trip(client: Client) -> None:
    """Returns when the server has all that was sent before.

    One flush is not enough: nats-py writes its PING past what it has still buffered, which goes out before the second.
    """
    await client.flush()
    await client.flush()
