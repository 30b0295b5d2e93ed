"""Pull requests to JetStream for many lanes, and what comes back; nats-py itself is only met in `nats`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog

from worker.queue.lanes import Lane
from worker.queue.pulls import LanePull, Request

if TYPE_CHECKING:
    from worker.queue.nats import NatsJobBroker

log = structlog.get_logger(__name__)

SETUP_RETRY_S = 0.5
DRAIN_TIMEOUT_S = 3.0


class Message(Protocol):
    """What is used of a message of nats-py."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None

    async def ack(self) -> None: ...
    async def nak(self, delay: float | None = None) -> None: ...
    async def term(self) -> None: ...


class NatsDelivery:
    """A doorbell and where to answer it."""

    __slots__ = ("_message", "_trouble", "arrived", "job_id", "lane")

    def __init__(self, message: Message, lane: Lane, trouble: tuple[type[Exception], ...]) -> None:
        self.job_id = UUID(json.loads(message.data)["id"])
        self.lane = lane
        self.arrived = time.monotonic()
        self._message = message
        self._trouble = trouble

    async def ack(self) -> None:
        with contextlib.suppress(*self._trouble):
            await self._message.ack()

    async def nak(self, delay_s: float = 0.0) -> None:
        with contextlib.suppress(*self._trouble):
            await self._message.nak(delay_s or None)


class NatsPulls:
    """Pull requests for many lanes, answered into one inbox.

    nats-py's own `fetch` asks twice per call and can leave a request behind that swallows a message, so the requests
    (ADR-13 of nats-architecture-and-design) are made here: one at a time per lane, with a heartbeat that tells a
    request that the server forgot from a lane that is empty.
    """

    def __init__(self, broker: NatsJobBroker) -> None:
        self._broker = broker
        self._inbox = ""
        self._subscription: Any = None
        self._setup: asyncio.Task[None] | None = None
        self._lanes: dict[tuple[str, str], LanePull] = {}
        self._heard: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        """Whether asking makes sense: connected, with the stream and consumers in place."""
        return (
            self._broker.connected
            and self._setup is not None
            and self._setup.done()
            and not self._setup.cancelled()
        )

    def open(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._broker.on_connected.append(self._connected)

    def add(self, lanes: Sequence[LanePull]) -> None:
        self._lanes |= {(pull.lane.queue, pull.lane.name): pull for pull in lanes}
        if lanes and self._broker.connected:
            self.set_up()

    async def close(self) -> None:
        self._broker.on_connected.remove(self._connected)
        if self._setup is not None:
            self._setup.cancel()
        if self._subscription is not None and self._broker.connected:
            with contextlib.suppress(*self._broker.trouble):
                # drained, not dropped: what is on its way still arrives and can be given back
                await asyncio.wait_for(self._subscription.drain(), DRAIN_TIMEOUT_S)

    async def ask(self, pull: LanePull, request: Request) -> None:
        """Sends one pull request; its messages, heartbeats and end arrive at `pull`."""
        body: dict[str, int] = {
            "batch": request.batch,
            "expires": int(request.expires_s * 1e9),
            "idle_heartbeat": int(request.heartbeat_s * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._broker.stream_name}.{pull.lane.queue}_{pull.lane.name}"
        reply = f"{self._inbox}.{pull.lane.queue}.{pull.lane.name}.{request.number}"
        with contextlib.suppress(*self._broker.trouble):
            await self._broker.client.publish(subject, json.dumps(body).encode(), reply=reply)

    def set_up(self) -> None:
        """(Re)creates what the broker lacks, in the background."""
        if self._setup is not None:
            self._setup.cancel()
        self._setup = asyncio.create_task(self._make())

    async def _connected(self) -> None:
        for pull in self._lanes.values():
            pull.ended()
        self.set_up()

    async def _make(self) -> None:
        while True:
            try:
                await self._broker.add_stream()
                for pull in list(self._lanes.values()):
                    await self._broker.add_lane(pull.lane)
                await self._subscribe()
            except self._broker.trouble as error:
                log.warning("The lanes of doorbells could not be made", error=repr(error))
                await asyncio.sleep(SETUP_RETRY_S)
            else:
                break
        asyncio.get_running_loop().call_soon(self._heard)

    async def _subscribe(self) -> None:
        client = self._broker.client
        if self._subscription is None or self._subscription._id not in client._subs:  # noqa: SLF001 # as above
            self._inbox = client.new_inbox()
            self._subscription = await client.subscribe(f"{self._inbox}.>", cb=self._arrived)

    async def _arrived(self, message: Message) -> None:
        if message.headers and not message.reply:
            self._status(message)
        else:
            await self._bell(message)
        self._heard()

    def _status(self, message: Message) -> None:
        queue, name, number = message.subject.split(".")[-3:]
        pull = self._lanes.get((queue, name))
        status = (message.headers or {}).get("Status")
        if pull is None or int(number) != pull.number:
            return
        if status == "100":
            pull.alive()
            return
        pull.ended()
        if status in ("503", "404") or "Deleted" in (message.headers or {}).get("Description", ""):
            self.set_up()

    async def _bell(self, message: Message) -> None:
        queue, name = message.subject.split(".")[-2:]
        pull = self._lanes[(queue, name)]
        try:
            pull.received(NatsDelivery(message, pull.lane, self._broker.trouble))
        except (ValueError, KeyError, TypeError):
            log.warning("A message that is no doorbell was thrown away", subject=message.subject)
            await message.term()
