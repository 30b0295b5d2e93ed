"""One worker child: `python -m worker.process.child ORDERS`. It runs jobs and tells its parent what it holds."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.db import migrate
from worker.ending import EndedUnasked, end, until
from worker.engine import Engine
from worker.joblogs import capture
from worker.joblogs.counters import by_queue
from worker.joblogs.journal import Journal
from worker.joblogs.recorder import Recorder, Scope
from worker.jobs.registry import Registry
from worker.process import presence
from worker.process.entry import Line, Orders, Stop, begin
from worker.queue.lanes import QueueChoice, parse_priorities, parse_queues
from worker.queue.receiver import DRAIN_S, JobReceiver
from worker.schedules.code import advertised
from worker.settings import Settings

log = structlog.get_logger(__name__)

ADVERTISE_S = 60.0
QUEUES_S = 5.0
SAY_S = 1.0
SAY_AT_MOST_EVERY_S = 0.1
FOR_EVER_S = 366 * 86_400.0


async def run(orders: Orders, line: Line, stop: Stop) -> None:
    """From the first import of the job modules to the last flushed outcome."""
    settings = Settings.from_env(os.environ)
    registry = Registry().discover(settings.job_modules)
    capture.install()
    await migrate.check(settings.database_url)
    async with Engine.create(settings, registry=registry) as engine:
        await WorkerChild(engine, orders, line).run(stop)


class WorkerChild:
    """The parts that run in every process that executes jobs: the supervisor's children and the inline worker."""

    def __init__(self, engine: Engine, orders: Orders, line: Line | None = None) -> None:
        self.engine = engine
        self.orders = orders
        self.line = line
        self.priorities = parse_priorities(orders.priorities)
        self.every_queue = not orders.queues
        choices = parse_queues(orders.queues) if orders.queues else own_queues(engine.registry)
        scope = Scope(tuple(engine.registry.names()), tuple(c.name for c in choices), *self.priorities)
        journal = Journal(engine.settings.home, orders.id)
        self.recorder = Recorder(
            engine.database, orders.id, scope, lease_s=engine.settings.lease_s, journal=journal
        )
        self._news = asyncio.Event()
        self.receiver = JobReceiver(
            engine,
            self.recorder,
            queues=choices,
            priorities=self.priorities,
            concurrency=orders.concurrency,
            changed=self._news.set,
        )

    async def enter(self, kind: str, supervisor_id: UUID | None) -> None:
        """Makes known what it can run and then itself: whoever sees its row can enqueue its jobs."""
        await self.engine.catalogue.advertise(self.engine.registry, self.orders.id)
        await presence.enter(
            self.engine.database,
            self.orders.id,
            kind,
            supervisor_id=supervisor_id,
            registry=self.engine.registry,
            schedules=advertised(self.engine.registry, self.engine.settings.secret_key),
            queues=self.recorder.scope.queues,
            priorities=self.orders.priorities,
            slots=self.orders.concurrency,
            max_memory_mb=self.orders.max_memory_mb,
            max_jobs=self.orders.max_jobs,
        )

    async def run(self, stop: Stop) -> None:
        """Works until `stop`, then drains."""
        await self.enter("worker", UUID(self.orders.supervisor_id))
        if self.line is not None:
            self.line.say(ready=True)
        stops = asyncio.create_task(self._drains(stop))
        try:
            await self.work(stop, self._says)
        finally:
            await end(stops)
            self._say()

    async def work(self, stop: Stop, *more: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Takes jobs until `stop`, then drains; does `more` meanwhile.

        Raises:
            EndedUnasked: a part of the work had ended before; what ran is drained all the same.
        """
        follows = (self.follows_queues,) if self.every_queue else ()
        loops = [
            asyncio.create_task(loop(), name=loop.__name__) for loop in (self.advertises, *follows, *more)
        ]
        watch = asyncio.create_task(self._watch(stop, loops))
        try:
            await self.receiver.listen(stop.event)
        finally:
            await end(watch, *loops)
        if not watch.cancelled():
            await watch

    async def _watch(self, stop: Stop, loops: Sequence[asyncio.Task[None]]) -> None:
        try:
            await until(stop.event, *loops)
        except EndedUnasked as error:
            log.error("This worker stops because a part of it has ended", part=str(error))  # noqa: TRY400 # its end tells the rest
            stop.now()
            raise

    async def advertises(self) -> None:
        """Says once a minute that these jobs are still offered."""
        while True:
            await asyncio.sleep(ADVERTISE_S)
            try:
                async with self.engine.database.patience():
                    await self.engine.catalogue.advertise(self.engine.registry, self.orders.id)
            except (SQLAlchemyError, OSError) as error:
                log.warning("The catalogue could not be refreshed", error=str(error)[:200])

    async def follows_queues(self) -> None:
        """A worker without --queues takes from every queue, also from those that appear while it runs."""
        while True:
            try:
                if not self.receiver.slots.closed:
                    async with self.engine.database.patience():
                        await self._follow_queues()
            except (SQLAlchemyError, OSError) as error:
                log.warning("The queues could not be read", error=str(error)[:200])
            await asyncio.sleep(QUEUES_S)

    async def _follow_queues(self) -> None:
        async with self.engine.database.read() as connection:
            found = {queue for queue, _ in await by_queue(connection)}
        choices = own_queues(self.engine.registry, found)
        names = tuple(choice.name for choice in choices)
        if set(names) - set(self.recorder.scope.queues):
            self.recorder.scope = Scope(self.recorder.scope.names, names, *self.priorities)
            self.receiver.serve(choices)
            await presence.serve_queues(self.engine.database, self.orders.id, names)

    async def _drains(self, stop: Stop) -> None:
        """Says that nothing new is taken, and how patiently the rest is waited for."""
        await stop.event.wait()
        self.receiver.let_run(FOR_EVER_S if stop.patient else DRAIN_S)
        told = asyncio.create_task(self._tells_that_it_stops())
        try:
            await stop.hurried.wait()
            self.receiver.let_run(DRAIN_S)
            await told
        finally:
            await end(told)

    async def _tells_that_it_stops(self) -> None:
        while True:
            try:
                async with self.engine.database.patience():
                    await presence.stopping(self.engine.database, self.orders.id)
            except (SQLAlchemyError, OSError) as error:
                log.warning("It could not be written that this worker stops", error=str(error)[:200])
                await asyncio.sleep(1)
            else:
                return

    async def _says(self) -> None:
        """Tells the parent on every change, at most ten times a second, and at least every second."""
        while True:
            self._say()
            await asyncio.sleep(SAY_AT_MOST_EVERY_S)
            timer = asyncio.get_running_loop().call_later(SAY_S - SAY_AT_MOST_EVERY_S, self._news.set)
            await self._news.wait()
            timer.cancel()
            self._news.clear()

    def _say(self) -> None:
        if self.line is not None:
            now = time.monotonic()
            held = [
                [str(e.id), e.hold.claimed.epoch, round(e.ends_by() - now, 2)] for e in self.receiver.held
            ]
            self.line.say(
                held=held, at=now, busy=self.receiver.slots.running, finished=self.recorder.finished
            )


def own_queues(registry: Registry, others: Sequence[str] | set[str] = ()) -> tuple[QueueChoice, ...]:
    """Every queue there is: `default`, those of the jobs, and those that somebody used."""
    return tuple(
        QueueChoice(name, 1) for name in sorted({"default", *(job.queue for job in registry), *others})
    )


if __name__ == "__main__":
    begin(run, sys.argv[1])
