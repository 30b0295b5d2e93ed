"""Doorbells on NATS JetStream: a work-queue stream, one durable pull consumer per queue and lane."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig
from taskiq import BrokerMessage
from taskiq_nats import PullBasedJetStreamBroker

from worker.db.session import Doorbell
from worker.ending import end
from worker.queue.broker import JobBroker
from worker.queue.lanes import Lane, lane_of
from worker.queue.nats_pulls import NatsPulls
from worker.queue.port import Free, Order, SignalHandler
from worker.queue.pulls import PullListener

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S = 1.0
RINGS_PER_ANSWER = 100
ACK_WAIT_S = 30.0
MAX_ACK_PENDING = 20_000
SETUP_RETRY_S = 0.5
TROUBLE = (nats.errors.Error, OSError)
"""What a broker that is away makes nats-py raise; its timeouts are OSErrors."""

_Callback = Callable[[], Awaitable[None]]


class NatsJobBroker(JobBroker, PullBasedJetStreamBroker):
    """taskiq-nats' pull broker with what it lacks: it survives its server, and labels never become headers.

    It owns the connection; the messages are doorbells (see `NatsDoorbells`), because jobs are rows.
    """

    trouble = TROUBLE

    def __init__(self, url: str, prefix: str = "framework") -> None:
        PullBasedJetStreamBroker.__init__(
            self,
            servers=url.split(","),
            subject=f"{prefix}.jobs.>",
            stream_name=f"{prefix}_m_jobs",
            stream_config=StreamConfig(
                name=f"{prefix}_m_jobs",
                subjects=[f"{prefix}.jobs.>"],
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.NEW,
            ),
        )
        self.prepare()
        self.prefix = prefix
        self.address = ",".join(_without_secrets(server) for server in url.split(","))
        self.on_connected: list[_Callback] = []
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._opened = False
        self.has_stream = False
        """Seen on this connection; without it a doorbell would ring into the void."""

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    async def startup(self) -> None:
        """Returns at once; a missing server delays doorbells, not the start."""
        await JobBroker.startup(self)
        self.js = self.client.jetstream(timeout=2)
        self._keeper = asyncio.create_task(self._keep_connected(), name="nats-connection")

    async def shutdown(self) -> None:
        await end(self._keeper)
        if self._opened:  # nats-py cannot close what never was open
            with contextlib.suppress(*TROUBLE):
                await asyncio.wait_for(self.client.close(), 2)
        await JobBroker.shutdown(self)

    async def kick(self, message: BrokerMessage) -> None:
        await JobBroker.kick(self, message)

    async def add_stream(self) -> None:
        """Creates the stream, or finds it as it is."""
        await self._add_or_reuse_stream()
        self.has_stream = True

    async def add_lane(self, lane: Lane) -> str:
        """Creates the lane's consumer and returns its name; only workers do this."""
        name = f"{lane.queue}_{lane.name}"
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=self.subject_of(lane),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=MAX_ACK_PENDING,
            max_waiting=4096,
        )
        await self.js.add_consumer(self.stream_name, config=config)
        return name

    def subject_of(self, lane: Lane) -> str:
        return f"{self.prefix}.jobs.{lane.queue}.{lane.name}"

    async def _keep_connected(self) -> None:
        """nats-py reconnects by itself until the server refuses it (a changed password); then it must begin anew."""
        while True:
            self._lost.clear()
            try:
                await self._connect()
            except TROUBLE as error:
                log.warning("The broker refused the connection", broker=self.address, error=str(error))
                await asyncio.sleep(1)
                continue
            self._opened = True
            log.info("Connected to the broker", broker=self.address)
            await self._tell()
            await self._lost.wait()
            await asyncio.sleep(1)

    async def _connect(self) -> None:
        await self.client.connect(
            self.servers,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type] # annotated int, used as seconds in asyncio.sleep
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            pending_size=1024 * 1024,
            error_cb=self._failed,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
        )

    async def _failed(self, error: Exception) -> None:
        log.debug("The connection to the broker had an error", broker=self.address, error=repr(error))

    async def _disconnected(self) -> None:
        if self.client.is_closed:  # we left, the broker did not
            return
        log.warning(
            "The connection to the broker is gone; jobs are still found by polling", broker=self.address
        )

    async def _reconnected(self) -> None:
        log.info("Connected to the broker again", broker=self.address)
        await self._tell()

    async def _closed(self) -> None:
        self._lost.set()

    async def _tell(self) -> None:
        self.has_stream = False
        for callback in self.on_connected:
            await callback()


class NatsDoorbells:
    """Rings, hears and signals over the connection of a `NatsJobBroker`."""

    backend = "nats"

    def __init__(self, broker: NatsJobBroker) -> None:
        self.broker = broker
        self._handlers: dict[UUID, SignalHandler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        broker.on_connected.append(self._set_up)

    @property
    def connected(self) -> bool:
        return self.broker.connected

    async def start(self) -> None:
        await self.broker.startup()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.broker.shutdown()

    async def ring(self, bells: Sequence[Doorbell]) -> None:
        """Messages of one connection reach the stream in order, so the answer to the last speaks for those before it."""
        if not self.connected or not bells:
            return
        try:
            if not self.broker.has_stream:
                await asyncio.wait_for(self.broker.add_stream(), ANSWER_TIMEOUT_S)
            try:
                await self._ring_all(bells)
            except nats.js.errors.NoStreamResponseError:
                log.warning(
                    "The stream of doorbells is gone: making it again", stream=self.broker.stream_name
                )
                await asyncio.wait_for(self.broker.add_stream(), ANSWER_TIMEOUT_S)
                await self._ring_all(bells)
        except TROUBLE as error:
            log.warning(
                "The broker did not confirm doorbells; polls find the jobs",
                count=len(bells),
                error=repr(error),
            )

    def listen(self, lanes: Sequence[Lane], free: Free, order: Order | None = None) -> PullListener:
        return PullListener(NatsPulls(self.broker), lanes, free, order or (lambda: lanes))

    async def signal(self, worker_id: UUID, message: dict[str, Any]) -> None:
        if not self.connected:
            return
        try:
            await self.broker.client.publish(
                self._control(worker_id), json.dumps(message, default=str).encode()
            )
        except TROUBLE as error:
            log.warning("A control message was not sent", worker_id=str(worker_id), error=repr(error))

    def on_signal(self, worker_id: UUID, handler: SignalHandler) -> None:
        self._handlers[worker_id] = handler
        if self.connected:
            self._spawn(self._subscribe(worker_id))

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "backend": self.backend,
            "connected": self.connected,
            "url": self.broker.address,
        }
        if not self.connected:
            return found | {"consumers": []}
        with contextlib.suppress(*TROUBLE):
            stream = await self.broker.js.stream_info(self.broker.stream_name)
            consumers = await self.broker.js.consumers_info(self.broker.stream_name)
            found["stream"] = {
                "name": self.broker.stream_name,
                "messages": stream.state.messages,
                "bytes": stream.state.bytes,
            }
            found["consumers"] = [
                {
                    "queue": info.name.rpartition("_")[0],
                    "lane": info.name.rpartition("_")[2],
                    "pending": info.num_pending or 0,
                    "ack_pending": info.num_ack_pending or 0,
                    "redelivered": info.num_redelivered or 0,
                }
                for info in consumers
            ]
        return found

    async def _ring_all(self, bells: Sequence[Doorbell]) -> None:
        for start in range(0, len(bells), RINGS_PER_ANSWER):
            await asyncio.wait_for(self._ring(bells[start : start + RINGS_PER_ANSWER]), ANSWER_TIMEOUT_S)

    async def _ring(self, bells: Sequence[Doorbell]) -> None:
        publish, subject_of = self.broker.client.publish, self.broker.subject_of
        for bell in bells[:-1]:
            await publish(subject_of(lane_of(bell)), _body(bell))
        await self.broker.js.publish(
            subject_of(lane_of(bells[-1])), _body(bells[-1]), timeout=ANSWER_TIMEOUT_S
        )

    async def _set_up(self) -> None:
        self._spawn(self._add_stream())
        for worker_id in self._handlers:
            self._spawn(self._subscribe(worker_id))

    async def _add_stream(self) -> None:
        while self.connected:
            try:
                await self.broker.add_stream()
            except TROUBLE as error:
                log.warning("The stream of doorbells could not be made", error=repr(error))
                await asyncio.sleep(SETUP_RETRY_S)
            else:
                return

    async def _subscribe(self, worker_id: UUID) -> None:
        async def heard(message: Msg) -> None:
            try:
                await self._handlers[worker_id](json.loads(message.data))
            except Exception:
                log.exception("A control message could not be handled", worker_id=str(worker_id))

        for subscription in list(self.broker.client._subs.values()):  # noqa: SLF001 # nats-py has no other list of them
            if subscription.subject == self._control(worker_id):
                return
        with contextlib.suppress(*TROUBLE):
            await self.broker.client.subscribe(self._control(worker_id), cb=heard)

    def _control(self, worker_id: UUID) -> str:
        return f"{self.broker.prefix}.ctl.{worker_id}"

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _body(bell: Doorbell) -> bytes:
    return b'{"id":"%s"}' % str(bell.job_id).encode()


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"
