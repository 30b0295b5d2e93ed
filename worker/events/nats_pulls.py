"""One subscription on JetStream: a pull consumer, made again when the broker has lost it, and what it hands over."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import structlog

from worker.db.base import new_id
from worker.ending import end
from worker.errors import BusAway
from worker.events.handling import Handling, delay_s
from worker.events.port import MAX_DELIVERIES

if TYPE_CHECKING:
    from worker.events.nats import NatsEventBusAdapter

log = structlog.get_logger(__name__)

RECORDED = "M-Recorded"
"""The header of what comes from the outbox."""
BATCH = 64
EXPIRES_S = 20.0
HEARTBEAT_S = 1.0
SILENCE_S = 3.0
START_S = 2.0
FORGOTTEN_S = 120.0
"""A consumer without a name is forgotten by the server when nobody has asked for so long."""

Beginning = Literal["now", "all"] | datetime | int
"""Where a new consumer begins: with what comes, with all there is, at a time, at a number of the stream."""


class _Gone(Exception):
    """The request will not be answered: the consumer or the connection is not what it was."""


class NatsSubscription:
    """Asks for messages by hand, as the doorbells do: nats-py's `fetch` is deaf after a restart of the server."""

    def __init__(
        self,
        bus: NatsEventBusAdapter,
        handling: Handling,
        durable: str | None,
        since: datetime,
        *,
        replay: bool,
    ) -> None:
        self._bus = bus
        self._handling = handling
        self._durable = durable
        self._since = since
        self._replay = replay
        self._consumer = ""
        self._stream_made: datetime | None = None
        self._last = 0
        """The highest number in the stream that was handed over."""
        self._held: dict[int, Any] = {}
        self._placed = asyncio.Event()
        self._began = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when the place in the stream is fixed, or after a moment: then it is fixed by the time of the call."""
        name = f"events: {self._handling.pattern}"
        self._began = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._run(), name=name),
            asyncio.create_task(self._touch(), name=f"{name}: touch"),
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._placed.wait(), START_S)

    async def stop(self) -> None:
        self._bus.forget(self)
        await end(*self._tasks)
        if not self._bus.connected:
            return
        for message in self._held.values():
            await self._quietly(message.nak())
        if self._durable is None and self._consumer:
            await self._quietly(self._bus.js.delete_consumer(self._bus.stream, self._consumer))
        await self._quietly(self._bus.client.flush(1))

    async def _run(self) -> None:
        while True:
            await self._bus.wait_connected()
            try:
                await self._place()
                self._placed.set()
                await self._take()
            except (_Gone, BusAway):
                await asyncio.sleep(0.2)
            except self._bus.trouble as error:
                log.debug("A subscription to events waits for the broker", error=repr(error))
                await asyncio.sleep(0.5)

    # The consumer

    async def _place(self) -> None:
        """Finds or makes the consumer. After a loss it goes on where this subscription was."""
        made = (await self._bus.add_stream()).created
        name = self._durable or self._consumer or f"once_{new_id().hex}"
        subject = f"{self._bus.subject}.{self._handling.pattern}"
        forgotten_s = None if self._durable else FORGOTTEN_S
        await self._bus.add_consumer(name, subject, self._beginning(made), forgotten_s)
        self._consumer, self._stream_made = name, made

    def _beginning(self, made: datetime | None) -> Beginning:
        if self._stream_made is None:
            at_once = asyncio.get_running_loop().time() - self._began < START_S
            return "now" if at_once and not self._replay else self._since
        if made != self._stream_made:  # the broker lost everything: what is there now is new
            return "all"
        return self._last + 1 if self._last else self._since

    # The messages

    async def _take(self) -> None:
        """Requests, one after the other, until one goes unanswered."""
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        inbox = self._bus.client.new_inbox()

        async def heard(message: Any) -> None:
            if message.reply and not self._is_status(message):
                self._held[message.metadata.sequence.stream] = message
            await arrived.put(message)

        self._held.clear()
        subscription = await self._bus.client.subscribe(f"{inbox}.>", cb=heard)
        number = 0
        try:
            while True:
                number += 1
                await self._request(f"{inbox}.{number}", arrived)
        finally:
            await self._quietly(subscription.unsubscribe())
            for message in tuple(self._held.values()):  # else they come again only after the wait
                await self._quietly(message.nak())

    async def _request(self, reply: str, arrived: asyncio.Queue[Any]) -> None:
        body = {"batch": BATCH, "expires": int(EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._bus.stream}.{self._consumer}"
        await self._bus.client.publish(subject, json.dumps(body).encode(), reply=reply)
        left = BATCH
        while left:
            try:
                async with asyncio.timeout(SILENCE_S):
                    message = await arrived.get()
            except TimeoutError:
                await asyncio.sleep(0.1)  # a loop that was held up has not read yet what came meanwhile
                if arrived.empty():
                    raise _Gone from None
                continue
            if not self._is_status(message):
                left -= 1
                await self._handle(message)
            elif message.subject == reply and self._ends(message):
                return

    def _ends(self, message: Any) -> bool:
        status = message.headers.get("Status")
        if status == "100":
            return False
        if status == "503" or "Deleted" in message.headers.get("Description", ""):
            raise _Gone
        return True

    async def _handle(self, message: Any) -> None:
        metadata = message.metadata
        number, deliveries = metadata.sequence.stream, metadata.num_delivered
        topic = message.subject.removeprefix(f"{self._bus.subject}.")
        if await self._handling.handle(topic, message.data, RECORDED in (message.headers or {})):
            await self._quietly(message.ack())
        elif deliveries >= MAX_DELIVERIES:
            self._handling.give_up(topic, deliveries)
            await self._quietly(message.term())
        else:
            await self._quietly(message.nak(delay_s(deliveries)))
        self._held.pop(number, None)
        self._last = max(self._last, number)

    async def _touch(self) -> None:
        """Tells the server that what was taken is still being worked on."""
        while True:
            await asyncio.sleep(self._bus.ack_wait_s / 3)
            for message in tuple(self._held.values()):
                await self._quietly(message.in_progress())

    async def _quietly(self, answer: Awaitable[Any]) -> None:
        """What an answer that the broker does not get changes, a redelivery makes up for."""
        with contextlib.suppress(*self._bus.trouble):
            await answer

    @staticmethod
    def _is_status(message: Any) -> bool:
        return bool(message.headers and "Status" in message.headers and not message.data)
