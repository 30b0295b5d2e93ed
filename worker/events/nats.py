"""NatsEventBusAdapter: the event bus on JetStream, stream `<prefix>_m_events`, subjects `<prefix>.bus.<topic>`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig, StreamInfo

from worker.db.base import utc_now
from worker.ending import end
from worker.errors import BusAway
from worker.events.handling import Handling, check_subscription, message_of
from worker.events.nats_pulls import RECORDED, Beginning, NatsSubscription
from worker.events.port import ACK_WAIT_S, KEPT_FOR, Handler, Message
from worker.events.types import BaseEvent

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 2.0
AT_ONCE = 100
TROUBLE = (nats.errors.Error, OSError)
"""What a broker that is away makes nats-py raise; its timeouts are OSErrors."""


class NatsEventBusAdapter:
    """Connects at the first use, then for as long as the process wants it. The stream is made anew when it is gone."""

    backend = "nats"
    trouble = TROUBLE

    def __init__(self, url: str, prefix: str = "framework", *, ack_wait_s: float = ACK_WAIT_S) -> None:
        self.url = url
        self.subject = f"{prefix}.bus"
        self.stream = f"{prefix}_m_events"
        self.ack_wait_s = ack_wait_s
        self.client = Client()
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._subscriptions: set[NatsSubscription] = set()

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    @property
    def js(self) -> JetStreamContext:
        return self.client.jetstream(timeout=ANSWER_TIMEOUT_S)

    async def start(self) -> None:
        """Nothing is opened before somebody publishes or subscribes."""

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in tuple(self._subscriptions)))
        if self._keeper is None:
            return
        await end(self._keeper)
        self._keeper = None
        if not self.client.is_closed:
            with contextlib.suppress(*TROUBLE):
                await asyncio.wait_for(self.client.close(), 2)

    async def publish(self, topic: str, event: BaseEvent | Sequence[BaseEvent]) -> None:
        await self.publish_many([message_of(topic, event)])

    async def publish_many(self, messages: Sequence[Message]) -> None:
        await self.ready()
        try:
            for start in range(0, len(messages), AT_ONCE):
                await self._publish(messages[start : start + AT_ONCE])
        except TROUBLE as error:
            raise BusAway(detail=_said(error)) from error

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        since: datetime | None = None,
        foreign: bool = False,
    ) -> NatsSubscription:
        check_subscription(pattern, durable, since)
        self._keep()
        subscription = NatsSubscription(
            self, Handling(pattern, handler, foreign), durable, since or utc_now(), replay=since is not None
        )
        self._subscriptions.add(subscription)
        await subscription.start()
        return subscription

    async def born(self) -> datetime:
        await self.ready()
        try:
            created = (await self.add_stream()).created
        except TROUBLE as error:
            raise BusAway(detail=_said(error)) from error
        if created is None:
            raise BusAway(detail="the server does not say when its stream was made")
        return created

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {"backend": self.backend, "connected": self.connected}
        with contextlib.suppress(*TROUBLE, BusAway):
            await self.ready()
            info = await self.js.stream_info(self.stream)
            found |= {"connected": True, "stream": {"name": self.stream, "messages": info.state.messages, "bytes": info.state.bytes}}  # fmt: skip
        return found

    # For its subscriptions too

    async def ready(self) -> None:
        """Waits a moment for the connection.

        Raises:
            BusAway: there is none.
        """
        self._keep()
        if self.connected:
            return
        try:
            await asyncio.wait_for(self._up.wait(), ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise BusAway(detail="there is no connection to NATS") from None

    async def wait_connected(self) -> None:
        while True:
            await self._up.wait()
            if self.connected:
                return
            await asyncio.sleep(0.1)

    async def add_stream(self) -> StreamInfo:
        """The stream, made if it is not there."""
        try:
            return await self.js.stream_info(self.stream)
        except nats.js.errors.NotFoundError:
            config = StreamConfig(
                name=self.stream,
                subjects=[f"{self.subject}.>"],
                retention=RetentionPolicy.LIMITS,
                max_age=KEPT_FOR.total_seconds(),
                duplicate_window=120,
            )
            await self.js.add_stream(config)
            return await self.js.stream_info(self.stream)

    async def add_consumer(
        self, name: str, subject: str, beginning: Beginning, forgotten_s: float | None
    ) -> None:
        """The consumer as it stands, with this pattern; made if it is not there."""
        try:
            config = (await self.js.consumer_info(self.stream, name)).config
        except nats.js.errors.NotFoundError:
            config = ConsumerConfig(
                name=name,
                durable_name=None if forgotten_s else name,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self.ack_wait_s,
                filter_subject=subject,
                inactive_threshold=forgotten_s,
                **_beginning(beginning),
            )
            await self.js.add_consumer(self.stream, config)
        if config.filter_subject != subject:  # the name has got another pattern
            config.filter_subject = subject
            await self.js.add_consumer(self.stream, config)

    def forget(self, subscription: NatsSubscription) -> None:
        self._subscriptions.discard(subscription)

    async def _publish(self, messages: Sequence[Message]) -> None:
        """All of them at once; again, after making the stream, when there is none."""
        results = await asyncio.gather(
            *(self._publish_one(each) for each in messages), return_exceptions=True
        )
        failed = [
            each for each, result in zip(messages, results, strict=True) if isinstance(result, BaseException)
        ]
        error = next((result for result in results if isinstance(result, BaseException)), None)
        if error is None:
            return
        if not isinstance(error, nats.js.errors.NoStreamResponseError):
            raise error
        log.warning("The stream of events is not there: making it", stream=self.stream)
        await self.add_stream()
        await asyncio.gather(*(self._publish_one(each) for each in failed))

    async def _publish_one(self, message: Message) -> None:
        headers = {"Nats-Msg-Id": message.message_id} if message.message_id else {}
        if message.recorded:
            headers[RECORDED] = "1"
        await self.js.publish(
            f"{self.subject}.{message.topic}",
            message.data,
            timeout=ANSWER_TIMEOUT_S,
            headers=headers or None,
        )

    # The connection

    def _keep(self) -> None:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected(), name="event bus: connection")

    async def _keep_connected(self) -> None:
        """nats-py reconnects by itself until the server refuses it (a changed password); then it must begin anew."""
        while True:
            self._lost.clear()
            try:
                await self._connect()
            except TROUBLE as error:
                log.warning("The event bus refused the connection", error=repr(error))
                await asyncio.sleep(1)
                continue
            self._up.set()
            await self._lost.wait()
            self._up.clear()
            await asyncio.sleep(1)

    async def _connect(self) -> None:
        await self.client.connect(
            self.url.split(","),
            name="m-desk events",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # annotated int, used as seconds in asyncio.sleep
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            error_cb=self._failed,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
        )

    async def _failed(self, error: Exception) -> None:
        log.debug("The event bus had an error", error=repr(error))

    async def _disconnected(self) -> None:
        self._up.clear()

    async def _reconnected(self) -> None:
        self._up.set()

    async def _closed(self) -> None:
        self._lost.set()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _beginning(beginning: Beginning) -> dict[str, Any]:
    if isinstance(beginning, datetime):
        return {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": beginning}
    if isinstance(beginning, int):
        return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": beginning}
    return {"deliver_policy": DeliverPolicy.ALL if beginning == "all" else DeliverPolicy.NEW}
