"""The clerk child: `python -m worker.process.clerk ORDERS`. All loops of the desk; any number of clerks may run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from worker.accounts.audit import SEAL_BATCH, seal
from worker.db import migrate
from worker.db.session import Database
from worker.ending import end, until
from worker.engine import Engine
from worker.events.intake import Intake
from worker.events.job_starts import JobStarts
from worker.events.relay import BATCH as RELAY_BATCH
from worker.events.relay import Relay
from worker.events.takers import BATCH as TAKE_BATCH
from worker.events.takers import Taker, hand_over
from worker.joblogs import backlog, bulk, counters, journal, maintenance, sweeper
from worker.live.port import CHANGES, RESYNC, Message
from worker.process import presence
from worker.process.entry import Line, Orders, Stop, begin
from worker.process.identity import boot_id, is_gone
from worker.process.models import Worker
from worker.schedules import clock
from worker.schedules.code import CodeSchedules
from worker.settings import Settings
from worker.webhooks import replays, taker
from worker.webhooks.claims import LOST_BATCH, take_back_lost
from worker.webhooks.courier import Courier
from worker.webhooks.sandbox import Sandbox
from worker.webhooks.sending import HttpSender
from worker.webhooks.transport import Sender as Transport
from worker.webhooks.urls import Rule

log = structlog.get_logger(__name__)

LONGEST_PAUSE_S = 30.0
OUTAGE_PAUSE_S = 2.0
"""A database that comes back does not wait for the clerk to notice."""
OUTAGE = (OperationalError, InterfaceError, OSError)
END_S = 2.0
SOON_S, LONG_S = 15.0, 3600.0
"""Patience with what jobs wait for, and with what goes through everything there is."""
BURIAL_S = 2.0
"""How long a process that has ended is its supervisor's to bury."""
ORPHAN_BURIAL_S = 0.4
"""Where all that one supervisor had started ended unasked, it is most likely gone as well."""
WAKE_GAP_S, BUSY_GAP_S = 0.1, 0.04
"""A loop that is woken by commits gathers this long, and up to twice as long: one look finds what many have brought, in one write.
Meanwhile the work itself has the processor and SQLite's lock, and of several clerks one comes first and leaves nothing to the others.
What came while it was at work has gathered already, and waits less.
"""


@dataclass(frozen=True, slots=True)
class Loop:
    """An action that is done again and again. It answers how much it did; from `full` on there is more to do at once."""

    name: str
    every_s: float
    action: Callable[[], Awaitable[int]]
    full: int = 1
    first_after_s: float = 0.0
    wake: asyncio.Event | None = None
    """Set by whoever knows that there is something to do; the loop looks then, not only when its time has come."""
    patience_s: float = 120.0
    """Longer than this no action takes that still gets anywhere: its connection leads into the void."""
    end: Callable[[], Awaitable[None]] | None = None
    """Ends what its actions have left under way."""

    async def run(self) -> None:
        """For ever; an error is said and makes the next look wait longer."""
        try:
            await self._for_ever()
        finally:
            if self.end is not None:
                await self.end()

    async def _for_ever(self) -> None:
        trouble, longest_s = 0, LONGEST_PAUSE_S
        await asyncio.sleep(self.first_after_s)
        while True:
            try:
                done = await self._act()
                trouble = 0
            except Exception as error:
                done = 0
                trouble += 1
                longest_s = OUTAGE_PAUSE_S if isinstance(error, OUTAGE) else LONGEST_PAUSE_S
                log.warning(
                    "A loop had an error",
                    loop=self.name,
                    error=f"{type(error).__name__}: {error}"[:300],
                    times=trouble,
                )
            await self._pause(self.pause_s(done, trouble, longest_s))

    async def _act(self) -> int:
        """At the end an action under way may finish: one that is cut off in a statement leaves its connection behind."""
        action = asyncio.ensure_future(self._in_time())
        try:
            return await asyncio.shield(action)
        except asyncio.CancelledError:
            await asyncio.wait({action}, timeout=END_S)
            await end(action)
            raise

    async def _in_time(self) -> int:
        async with asyncio.timeout(self.patience_s):
            return await self.action()

    async def _pause(self, pause_s: float) -> None:
        if self.wake is None:
            await asyncio.sleep(pause_s)
            return
        gap_s = BUSY_GAP_S if self.wake.is_set() else WAKE_GAP_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self.wake.wait()
                await asyncio.sleep(gap_s * random.uniform(1, 2))
        self.wake.clear()

    def pause_s(self, done: int, trouble: int, longest_s: float = LONGEST_PAUSE_S) -> float:
        if trouble:
            return float(min(longest_s, max(self.every_s, 0.5) * 2 ** min(trouble - 1, 6)))
        return 0.0 if done >= self.full else self.every_s


def loops(engine: Engine, clerk_id: UUID | None = None) -> list[Loop]:
    """Everything that must happen by itself on a desk. `clerk_id` is the row of a process that does nothing else."""
    database, settings = engine.database, engine.settings
    seen, code = sweeper.Observations(settings.lease_s), CodeSchedules()
    gone = GoneProcesses(database, settings.home)
    relay = Relay(database, engine.bus)
    to_relay, to_hand_over = woken_by_events(engine), woken_by_events(engine)
    conditions, to_deliver = Sandbox(), woken_by(engine, taker.DUE)
    takers: list[Taker] = [JobStarts(), taker.WebhookTaker(conditions)]
    sender = HttpSender(Transport(Rule.of(settings)), Sandbox(), settings)
    courier = Courier(database, sender, lease_s=settings.lease_s, wake=to_deliver, process_id=clerk_id)

    async def end_deliveries() -> None:
        await courier.stop()
        await sender.close()

    return [
        Loop("due", 0.25, lambda: sweeper.promote_due(database), full=sweeper.BATCH, patience_s=SOON_S),
        Loop("schedules", 0.25, lambda: clock.fire_due(database), full=clock.BATCH),
        Loop("code schedules", 2.0, lambda: code.apply(database), wake=woken_by(engine, "worker")),
        Loop("lost", 0.5, lambda: rescue_lost(database, seen), full=sweeper.BATCH, patience_s=SOON_S),
        Loop("unheld", 5.0, lambda: sweeper.rescue_unheld(database), patience_s=SOON_S),
        Loop("gone", 0.5, lambda: gone.look(time.monotonic()), patience_s=SOON_S),
        Loop("unknown jobs", 60.0, lambda: sweeper.fail_unknown(database)),
        Loop("relay", 0.5, relay, full=RELAY_BATCH, wake=to_relay),
        Loop("intake", 5.0, Intake(database, engine.bus)),
        Loop(
            "takers",
            0.5,
            lambda: hand_over(database, takers),
            full=TAKE_BATCH,
            wake=to_hand_over,
            end=conditions.close,
        ),
        Loop("courier", 1.0, courier, wake=to_deliver, end=end_deliveries),
        Loop("lost deliveries", 1.0, lambda: take_back_lost(database), full=LOST_BATCH, patience_s=SOON_S),
        Loop("replays", 2.0, lambda: replays.run_pending(database), wake=woken_by(engine, "webhook_replay")),
        Loop("backlog", 15.0, lambda: backlog.watch(database, settings)),
        Loop("counts", 1.0, lambda: counters.fold(database), full=5000),
        Loop(
            "bulk",
            2.0,
            lambda: bulk.run_pending(database),
            wake=woken_by(engine, "operation"),
            patience_s=LONG_S,
        ),
        Loop("audit seal", 5.0, lambda: seal(database), full=SEAL_BATCH),
        Loop(
            "recount", 86_400.0, lambda: counters.recount(database), first_after_s=3600.0, patience_s=LONG_S
        ),
        Loop(
            "retention", 600.0, lambda: _purge(database, settings), full=maintenance.BATCH, patience_s=LONG_S
        ),
    ]


def woken_by_events(engine: Engine) -> asyncio.Event:
    """Set when some process says that it has recorded events."""
    wake = asyncio.Event()

    def hear(topic: str, message: Message) -> None:
        if topic == RESYNC or (topic == CHANGES and message.get("outbox")):
            wake.set()

    engine.socket.subscribe(hear)
    return wake


def woken_by(engine: Engine, kind: str) -> asyncio.Event:
    """Set when some process says that something of this kind has changed."""
    wake = asyncio.Event()

    def hear(topic: str, message: Message) -> None:
        if topic == RESYNC or (topic == CHANGES and any(c[0] == kind for c in message.get("changes", ()))):
            wake.set()

    engine.socket.subscribe(hear)
    return wake


async def rescue_lost(database: Database, seen: sweeper.Observations) -> int:
    """One sweep, by this process's monotonic clock."""
    return await sweeper.rescue_lost(database, seen, time.monotonic())


class GoneProcesses:
    """Takes back the jobs of processes of this very host that have ended and whose supervisor does not say so; ends that they
    still owed are written first.

    A supervisor that lives knows more of the death, and is given the time to say it.
    """

    def __init__(self, database: Database, home: Path) -> None:
        self._database = database
        self._home = home
        self._seen: dict[UUID, float] = {}

    async def look(self, now_s: float) -> int:
        """By a clock that never goes back; answers 0, since nothing is left for another look at once."""
        here = boot_id()
        if not here:
            return 0
        statement = sa.select(
            Worker.id, Worker.pid, Worker.process_started, Worker.supervisor_id, Worker.stopping_at
        ).where(Worker.ended_at.is_(None), Worker.boot_id == here)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        gone = [row for row in rows if is_gone(row.pid, here, row.process_started)]
        self._seen = {row.id: self._seen.get(row.id, now_s) for row in gone}
        looked_after = {row.supervisor_id for row in rows if row not in gone or row.stopping_at} - {None}
        for row in gone:
            patience_s = BURIAL_S if row.supervisor_id in looked_after else ORPHAN_BURIAL_S
            if now_s - self._seen[row.id] >= patience_s:
                await journal.write_left(self._database, self._home, row.id)
                await sweeper.rescue_worker(self._database, row.id, "its process has ended")
        return 0


async def run_loops(every: Sequence[Loop]) -> None:
    """Until cancelled.

    Raises:
        EndedUnasked: one of them has ended; without it the others are not kept either.
    """
    tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in every]
    try:
        await until(asyncio.Event(), *tasks)
    finally:
        await end(*tasks, again_s=2 * END_S)


async def run(orders: Orders, line: Line, stop: Stop) -> None:
    """The loops, until the parent asks to stop.

    Raises:
        EndedUnasked: they have ended before. The parent starts another clerk; this one would only look alive.
    """
    settings = Settings.from_env(os.environ)
    await migrate.check(settings.database_url)
    async with Engine.create(settings) as engine:
        await presence.enter(
            engine.database,
            orders.id,
            "clerk",
            supervisor_id=UUID(orders.supervisor_id),
            max_memory_mb=orders.max_memory_mb,
        )
        await journal.tidy(engine.database, settings.home, time.time())
        work = asyncio.create_task(run_loops(loops(engine, orders.id)), name="loops")
        line.say(ready=True, held=[], busy=0, finished=0)
        try:
            await until(stop.event, work)
        finally:
            await end(work, again_s=4 * END_S)


async def _purge(database: Database, settings: Settings) -> int:
    return sum((await maintenance.purge(database, settings)).values())


if __name__ == "__main__":
    begin(run, sys.argv[1])
