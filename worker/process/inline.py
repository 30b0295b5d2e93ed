"""Worker and clerk inside a web process: for `m web` without a broker, where doorbells cannot leave the process."""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.db.base import new_id
from worker.engine import Engine
from worker.joblogs import capture
from worker.joblogs.sweeper import rescue_worker
from worker.process import presence
from worker.process.child import WorkerChild
from worker.process.clerk import loops, run_loops
from worker.process.entry import Orders
from worker.process.identity import memory_mb
from worker.process.presence import Beat

log = structlog.get_logger(__name__)

DRAIN_S = 8.0
"""Less than a web server gives its requests at the end."""


class InlineWorker:
    """Runs the engine's jobs and loops in the loop that it is started in; the engine must have a registry."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._worker: WorkerChild | None = None
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._work: asyncio.Task[None] | None = None
        self._beats = 0

    async def start(self, engine: Engine) -> None:
        """Returns when the worker is known; jobs run from then on."""
        capture.install()
        orders = Orders(str(new_id()), "", 0, engine.settings.worker_concurrency)
        self._engine, self._worker = engine, WorkerChild(engine, orders)
        self._worker.receiver.drain_s = DRAIN_S
        await self._worker.enter("inline", None)
        self._work = asyncio.create_task(self._worker.receiver.listen(self._stop), name="inline worker")
        self._tasks = [
            asyncio.create_task(run_loops(loops(engine)), name="inline clerk"),
            asyncio.create_task(self._worker.advertises()),
            asyncio.create_task(self._worker.follows_queues()),
            asyncio.create_task(self._beat()),
        ]

    async def stop(self) -> None:
        """Takes nothing new, waits a little, releases the rest."""
        if self._engine is None or self._worker is None or self._work is None:
            return
        self._stop.set()
        await asyncio.gather(self._work, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError, OSError):
            await rescue_worker(self._engine.database, self._worker.orders.id, "the web process was stopped")

    async def _beat(self) -> None:
        """In the same loop as the jobs: one that blocks it for a whole lease also stops the clerk that would notice."""
        assert self._engine is not None
        assert self._worker is not None
        receiver = self._worker.receiver
        while True:
            self._beats += 1
            held = [[str(e.id), e.hold.claimed.epoch] for e in receiver.held]
            beat = Beat(
                self._worker.orders.id, self._beats, held, receiver.slots.running, memory_mb(os.getpid())
            )
            try:
                await presence.beat(self._engine.database, [beat])
            except (SQLAlchemyError, OSError) as error:
                log.warning("The inline worker's beat was not written", error=str(error)[:200])
            await asyncio.sleep(self._engine.settings.lease_s / 3)
