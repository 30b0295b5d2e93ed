"""The clerk child: `python -m worker.process.clerk ORDERS`. All loops of the desk; any number of clerks may run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
import structlog

from worker.accounts.audit import SEAL_BATCH, seal
from worker.db import migrate
from worker.db.session import Database
from worker.engine import Engine
from worker.joblogs import bulk, counters, maintenance, sweeper
from worker.process import presence
from worker.process.entry import Line, Orders, Stop, begin
from worker.process.identity import boot_id, is_gone
from worker.process.models import Worker
from worker.schedules import clock
from worker.schedules.code import CodeSchedules
from worker.settings import Settings

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Loop:
    """An action that is done again and again. It answers how much it did; from `full` on there is more to do at once."""

    name: str
    every_s: float
    action: Callable[[], Awaitable[int]]
    full: int = 1
    first_after_s: float = 0.0

    async def run(self) -> None:
        """For ever; an error is said and makes the next look wait longer."""
        trouble = 0
        await asyncio.sleep(self.first_after_s)
        while True:
            try:
                done = await self.action()
                trouble = 0
            except Exception as error:
                done = 0
                trouble += 1
                log.warning(
                    "A loop had an error",
                    loop=self.name,
                    error=f"{type(error).__name__}: {error}"[:300],
                    times=trouble,
                )
            await asyncio.sleep(self.pause_s(done, trouble))

    def pause_s(self, done: int, trouble: int) -> float:
        if trouble:
            return float(min(LONGEST_PAUSE_S, max(self.every_s, 0.5) * 2 ** min(trouble - 1, 6)))
        return 0.0 if done >= self.full else self.every_s


def loops(engine: Engine) -> list[Loop]:
    """Everything that must happen by itself on a desk."""
    database, settings = engine.database, engine.settings
    seen, code = sweeper.Observations(settings.lease_s), CodeSchedules()
    return [
        Loop("due", 0.25, lambda: sweeper.promote_due(database), full=sweeper.BATCH),
        Loop("schedules", 0.25, lambda: clock.fire_due(database), full=clock.BATCH),
        Loop("code schedules", 0.5, lambda: code.apply(database)),
        Loop("lost", 1.0, lambda: sweeper.rescue_lost(database, seen, time.monotonic()), full=sweeper.BATCH),
        Loop("gone", 1.0, lambda: rescue_gone(database)),
        Loop("unknown jobs", 60.0, lambda: sweeper.fail_unknown(database)),
        Loop("counts", 1.0, lambda: counters.fold(database), full=5000),
        Loop("bulk", 0.5, lambda: bulk.run_pending(database)),
        Loop("audit seal", 5.0, lambda: seal(database), full=SEAL_BATCH),
        Loop("recount", 86_400.0, lambda: counters.recount(database), first_after_s=3600.0),
        Loop("retention", 600.0, lambda: _purge(database, settings), full=maintenance.BATCH),
    ]


async def rescue_gone(database: Database) -> int:
    """Takes back the jobs of processes of this very host that have ended and whose supervisor could not say so."""
    here = boot_id()
    if not here:
        return 0
    statement = sa.select(Worker.id, Worker.pid, Worker.process_started).where(
        Worker.ended_at.is_(None), Worker.boot_id == here
    )
    async with database.read() as connection:
        rows = (await connection.execute(statement)).all()
    gone = [row.id for row in rows if is_gone(row.pid, here, row.process_started)]
    for worker_id in gone:
        await sweeper.rescue_worker(database, worker_id, "its process has ended")
    return 0


async def run_loops(every: Sequence[Loop]) -> None:
    """Until cancelled."""
    tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in every]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(orders: Orders, line: Line, stop: Stop) -> None:
    """The loops, until the parent asks to stop."""
    settings = Settings.from_env(os.environ)
    await migrate.check(settings.database_url)
    async with Engine.create(settings) as engine:
        await presence.enter(engine.database, orders.id, "clerk", supervisor_id=UUID(orders.supervisor_id))
        work = asyncio.create_task(run_loops(loops(engine)))
        line.say(ready=True, held=[], busy=0, finished=0)
        await stop.event.wait()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _purge(database: Database, settings: Settings) -> int:
    return sum((await maintenance.purge(database, settings)).values())


if __name__ == "__main__":
    begin(run)
