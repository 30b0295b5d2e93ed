"""The composition root: settings become a database, doorbells, a backplane, a catalogue. Only here are adapters chosen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self
from uuid import UUID

import structlog

from worker.batch import MicroBatch
from worker.cache.memory import InMemoryCache
from worker.cache.port import CacheProtocol
from worker.db.session import Database, Pending
from worker.errors import NotBound
from worker.events.memory import InMemoryEventBus
from worker.events.nats import NatsEventBusAdapter
from worker.events.port import EventBusProtocol
from worker.joblogs.enqueue import Reception, Request, accept
from worker.joblogs.models import JobLog
from worker.jobs.catalogue import Catalogue
from worker.jobs.registry import Registry
from worker.live.memory import InMemorySocketAdapter
from worker.live.nats import NatsSocketAdapter
from worker.live.port import CHANGES, SocketProtocol
from worker.queue.broker import JobBroker, JobQueue, TaskiqJobQueueAdapter
from worker.queue.memory import InMemoryJobQueue, MemoryDoorbells
from worker.queue.nats import NatsDoorbells, NatsJobBroker
from worker.queue.port import Doorbells
from worker.settings import Settings

log = structlog.get_logger(__name__)

ENQUEUE_BATCH = 200


class Engine:
    """The desk with the lights off. A process that gives a registry can run jobs; any other can only ask for them."""

    running: ClassVar[Engine | None] = None

    def __init__(
        self,
        settings: Settings,
        database: Database,
        registry: Registry | None,
        broker: JobBroker,
        doorbells: Doorbells,
        socket: SocketProtocol,
        cache: CacheProtocol | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.registry = Registry() if registry is None else registry
        self.broker = broker
        self.doorbells = doorbells
        self.socket = socket
        self.bus = _event_bus(settings)
        self.cache: CacheProtocol = cache or InMemoryCache()
        self.catalogue = Catalogue(
            database, self.registry, max_retries=settings.job_max_retries, timeout_s=settings.job_timeout_s
        )
        kind = InMemoryJobQueue if doorbells.backend == "memory" else TaskiqJobQueueAdapter
        self.queue: JobQueue = kind(self)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.reception = Reception(self.catalogue, settings)
        database.info["reception"] = self.reception
        database.info["engine"] = self
        database.on_commit = self._committed
        broker.bind(self)
        self.registry.bind(broker)
        self._requests: MicroBatch[Request, JobLog] = MicroBatch(self._accept, ENQUEUE_BATCH)

    @classmethod
    def create(cls, settings: Settings, *, registry: Registry | None = None) -> Engine:
        """Chooses the adapters that `settings` ask for. Nothing is opened before `start`."""
        database = Database(settings.database_url)
        broker, doorbells, socket = _transport(settings)
        return cls(settings, database, registry, broker, doorbells, socket, _cache(settings))

    @classmethod
    def bound(cls) -> Engine:
        """The engine of this process, for `worker.broker` and `.kiq()`.

        Raises:
            NotBound: none was started.
        """
        if cls.running is None:
            raise NotBound
        return cls.running

    async def start(self) -> None:
        """Connects; a broker that is away is waited for in the background."""
        Engine.running, self.loop = self, asyncio.get_running_loop()
        await asyncio.gather(self.doorbells.start(), self.socket.start(), self.cache.start())

    async def stop(self) -> None:
        """Ends what is under way and closes every connection."""
        await self._requests.drain()
        await self.database.settle()
        await self.bus.stop()
        await asyncio.gather(self.doorbells.stop(), self.socket.stop(), self.cache.stop())
        await self.database.close()
        if Engine.running is self:
            Engine.running = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def enqueue(self, job_name: str, args: dict[str, Any] | None = None, **options: Any) -> UUID:
        """Accepts a job in a transaction of its own, shared with whoever asks meanwhile; answers its id.

        Raises what `joblogs.actions.enqueue` raises. Returning means: committed.
        """
        return (await self._requests.do(Request(job_name, args or {}, **options))).id

    async def _accept(self, requests: Sequence[Request]) -> list[JobLog | BaseException]:
        async with self.database.transaction() as session:
            return list(await accept(session, requests))

    async def _committed(self, pending: Pending) -> None:
        """After every commit: doorbells, control messages, and the names of what changed. None of them may raise."""
        if pending.rings:
            await self.doorbells.ring(pending.rings)
        for worker_id, message in pending.signals:
            await self.doorbells.signal(worker_id, message)
        if pending.changes or pending.outbox_ids:
            changes = [[kind, key, rev] for (kind, key), rev in pending.changes.items()]
            outbox = [str(row_id) for row_id in pending.outbox_ids]
            await self.socket.broadcast(CHANGES, {"changes": changes, "outbox": outbox})


def _transport(settings: Settings) -> tuple[JobBroker, Doorbells, SocketProtocol]:
    """NATS where there is one, else Redis, else this process alone."""
    if settings.nats_url:
        broker = NatsJobBroker(settings.nats_url, settings.prefix)
        return broker, NatsDoorbells(broker), NatsSocketAdapter(settings.nats_url, settings.prefix)
    if settings.redis_url:
        return _redis_transport(settings.redis_url, settings.prefix)
    return JobBroker(), MemoryDoorbells(), InMemorySocketAdapter()


def _redis_transport(url: str, prefix: str) -> tuple[JobBroker, Doorbells, SocketProtocol]:
    from worker.live.redis import RedisSocketAdapter
    from worker.queue.redis import RedisDoorbells, RedisJobBroker

    broker = RedisJobBroker(url, prefix)
    return broker, RedisDoorbells(broker, url), RedisSocketAdapter(url, prefix)


def _cache(settings: Settings) -> CacheProtocol:
    """Redis wherever there is one, whatever carries the doorbells."""
    if not settings.redis_url:
        return InMemoryCache()
    from worker.cache.redis import RedisCache

    return RedisCache(settings.redis_url, settings.prefix)


def enqueue_sync(job_name: str, args: dict[str, Any] | None = None, **options: Any) -> UUID:
    """`Engine.enqueue` for synchronous code, from any thread but the engine's own; blocks until it is committed.

    In a process without an engine, one is made from the environment for this call.
    """
    engine = Engine.running
    if engine is not None and engine.loop is not None:
        return asyncio.run_coroutine_threadsafe(
            engine.enqueue(job_name, args, **options), engine.loop
        ).result()

    async def once() -> UUID:
        async with Engine.create(Settings.from_env(os.environ)) as fresh:
            return await fresh.enqueue(job_name, args, **options)

    return asyncio.run(once())


def _event_bus(settings: Settings) -> EventBusProtocol:
    """It connects when something is published or subscribed to: most processes never do."""
    if settings.nats_url:
        return NatsEventBusAdapter(settings.nats_url, settings.prefix)
    if settings.redis_url:
        from worker.events.redis import RedisEventBusAdapter

        return RedisEventBusAdapter(settings.redis_url, settings.prefix)
    return InMemoryEventBus()
