"""Worker and clerk inside a web process: for `m web` without a broker, where doorbells cannot leave the process."""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.db.base import new_id
from worker.ending import end
from worker.engine import Engine
from worker.joblogs import capture
from worker.joblogs.sweeper import rescue_worker
from worker.process import presence
from worker.process.child import WorkerChild
from worker.process.clerk import loops, run_loops
from worker.process.entry import Orders, Stop
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
        self._stop = Stop()
        self._leaving = False
        self._work: asyncio.Task[None] | None = None
        self._clerk: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._beats = 0

    async def start(self, engine: Engine) -> None:
        """Returns when the worker is known; jobs run from then on."""
        capture.install()
        self._engine, self._leaving = engine, False
        await self._begin(engine)
        self._begin_loops(engine)
        self._beating = asyncio.create_task(self._beat(engine), name="inline beat")

    async def stop(self) -> None:
        """Takes nothing new, waits a little, releases the rest."""
        if self._engine is None:
            return
        self._leaving = True
        await self._end(self._engine, "the web process was stopped")
        await end(self._beating, self._clerk)

    async def _begin(self, engine: Engine) -> None:
        """A worker with a new id."""
        self._stop = Stop()
        self._worker = WorkerChild(engine, Orders(str(new_id()), "", 0, engine.settings.worker_concurrency))
        self._worker.receiver.drain_s = DRAIN_S
        await self._worker.enter("inline", None)
        self._work = asyncio.create_task(self._worker.work(self._stop), name="inline worker")

    def _begin_loops(self, engine: Engine) -> None:
        self._clerk = asyncio.create_task(run_loops(loops(engine)), name="inline clerk")

    async def _end(self, engine: Engine, reason: str) -> None:
        if self._worker is None or self._work is None:
            return
        self._stop.now()
        await asyncio.gather(self._work, return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError, OSError):
            await rescue_worker(engine.database, self._worker.orders.id, reason, lost=False)

    async def _beat(self, engine: Engine) -> None:
        """Beats in the loop of the jobs, whatever error comes: nobody else would."""
        while True:
            try:
                await self._look_after(engine, await self._beat_once(engine))
            except Exception as error:
                log.warning("The inline worker's beat was not written", error=_words(error))
            await asyncio.sleep(engine.settings.lease_s / 3)

    async def _look_after(self, engine: Engine, wish: str | None) -> None:
        """Who was declared dead, because a job blocked it for a lease, begins anew; so does a part that has ended by itself."""
        assert self._work is not None
        assert self._clerk is not None
        if self._leaving:
            return
        if self._clerk.done():
            log.error("The clerk inside this process had ended and begins anew", error=_end_of(self._clerk))
            self._begin_loops(engine)
        if wish == "ended":
            log.warning("This process had been declared dead: a job must have blocked its event loop")
        elif self._work.done():
            log.error("The worker inside this process had ended and begins anew", error=_end_of(self._work))
        else:
            return
        await self._end(engine, "declared dead" if wish == "ended" else "a part of it had ended")
        await self._begin(engine)

    async def _beat_once(self, engine: Engine) -> str | None:
        assert self._worker is not None
        self._beats += 1
        receiver, worker_id = self._worker.receiver, self._worker.orders.id
        held = [[str(e.id), e.hold.claimed.epoch] for e in receiver.held]
        beat = Beat(worker_id, self._beats, held, receiver.slots.running, memory_mb(os.getpid()))
        return (await presence.beat(engine.database, [beat])).get(worker_id)


def _end_of(task: asyncio.Task[None]) -> str:
    return "it was cancelled" if task.cancelled() else _words(task.exception())


def _words(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:200]
