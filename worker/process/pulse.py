"""The supervisor's pulse: a thread with its own loop and connections that beats for the children and buries the dead.

Nothing that user code does can delay it, and nothing that it waits for delays the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import threading
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.db.session import Database
from worker.ending import EndedUnasked, end, until
from worker.engine import Engine
from worker.joblogs.claims import Claimed, held_rows
from worker.joblogs.finishes import Outcome, write_outcomes
from worker.joblogs.journal import write_left
from worker.joblogs.sweeper import rescue_worker
from worker.jobs.models import JobCatalogue
from worker.jobs.retry import RetryPolicy
from worker.process import presence
from worker.process.presence import Beat
from worker.queue.slots import GRACE_S
from worker.settings import Settings

log = structlog.get_logger(__name__)

STOP_TIMEOUT_S = 10.0
AGAIN_S = 1.0
"""A beat that could not be written is tried again this soon: others count the time since the last one."""


class TimedOutInSpite(Exception):
    """It ran longer than its limit and did not stop when it was asked to; its process was ended."""


class Pulse:
    """`beats` is asked every third of a lease what to say; `heard` is told who is to go and why; `ended`, that nobody beats any more."""

    def __init__(
        self,
        settings: Settings,
        beats: Callable[[], Sequence[Beat]],
        heard: Callable[[UUID, str], None],
        ended: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._beats = beats
        self._heard = heard
        self._ended = ended
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Waits for the burials under way."""
        if self._stop is not None:
            self._call(self._stop.set)
        self._thread.join(STOP_TIMEOUT_S)

    def bury(self, worker_id: UUID, reason: str, *, lost: bool, overdue: Collection[UUID] = ()) -> None:
        """Ends a dead process's row, writes the ends that it still owed and takes its other jobs back: as a loss, or released unburnt; `overdue` ones timed out."""
        self._call(self._spawn, functools.partial(self._bury, worker_id, reason, lost, frozenset(overdue)))

    def look_up(self, worker_id: UUID, answer: Callable[[list[list[Any]]], None]) -> None:
        """Answers, unless the database is away, what the rows say that the worker holds, and until when at most."""
        self._call(self._spawn, functools.partial(self._look_up, worker_id, answer))

    def _call(self, what: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self._loop.call_soon_threadsafe(what, *args)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            log.exception("The pulse has ended because of an error")
            self._ended()
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Engine.create(self._settings) as engine:
            self._database = engine.database
            self._ready.set()
            beating = asyncio.create_task(self._beat(), name="beat")
            try:
                await until(self._stop, beating)
            except EndedUnasked:
                log.exception("Nobody beats for the workers any more")
                self._ended()
                await self._stop.wait()  # the dead are buried all the same
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S / 2)
            await end(beating)

    async def _beat(self) -> None:
        while True:
            pause_s = self._settings.lease_s / 3
            try:
                async with asyncio.timeout(pause_s):  # a beat that hangs is a beat that is missing
                    wishes = await presence.beat(self._database, self._beats())
            except (SQLAlchemyError, OSError) as error:
                log.warning("The workers' beat was not written", error=_first_line(error))
                pause_s = min(pause_s, AGAIN_S)
            else:
                for worker_id, wish in wishes.items():
                    self._heard(worker_id, wish)
            await asyncio.sleep(pause_s)

    async def _bury(self, worker_id: UUID, reason: str, lost: bool, overdue: Collection[UUID]) -> None:
        delay, said = 0.1, False
        while True:
            try:
                async with self._database.patience():
                    await write_left(self._database, self._settings.home, worker_id)
                    if overdue or not lost:
                        await release(self._database, worker_id, overdue, unburnt=not lost)
                    await rescue_worker(self._database, worker_id, reason, lost=lost)
                    wish = await presence.wish_of(self._database, worker_id)
            except (SQLAlchemyError, OSError) as error:
                if not said:
                    log.warning("A dead worker's jobs are not taken back yet", error=_first_line(error))
                said = True
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)
            else:
                if wish:
                    self._heard(worker_id, wish)
                return

    async def _look_up(self, worker_id: UUID, answer: Callable[[list[list[Any]]], None]) -> None:
        with contextlib.suppress(SQLAlchemyError, OSError):
            answer(await left_to_run(self._database, worker_id))


async def left_to_run(database: Database, worker_id: UUID) -> list[list[Any]]:
    """[[job id, epoch, seconds until its process has to end], …] of what this worker's rows say that it runs."""
    held = await held_rows(database, worker_id)
    async with database.session() as session:
        now = await database.now(session)
    return [
        [str(job.id), job.epoch, (job.started_at - now).total_seconds() + job.timeout_s + GRACE_S]
        for job in held
    ]


async def release(
    database: Database, worker_id: UUID, overdue: Collection[UUID], *, unburnt: bool = True
) -> None:
    """Ends what a process held: jobs that would not stop at their limit have timed out; `unburnt`: the others are put back.

    What it had claimed and not begun it has put back itself.
    """
    outcomes = [
        await _timed_out(database, claimed)
        if claimed.id in overdue
        else Outcome(claimed, "released", reason="released")
        for claimed in await held_rows(database, worker_id)
        if unburnt or claimed.id in overdue
    ]
    if outcomes:
        await write_outcomes(database, worker_id, outcomes)


async def _timed_out(database: Database, claimed: Claimed) -> Outcome:
    async with database.read() as connection:
        stored = await connection.scalar(
            sa.select(JobCatalogue.retry).where(JobCatalogue.name == claimed.job_name)
        )
    waits = {"base_s": 2.0, "cap_s": 600.0} | (stored or {})
    error = TimedOutInSpite(TimedOutInSpite.__doc__)
    policy = RetryPolicy(base_s=waits["base_s"], cap_s=waits["cap_s"])
    decision = policy.decide(error, claimed.attempt, claimed.max_retries, random.random())
    text = f"TimeoutError: {error}"
    if decision.kind == "retry":
        return Outcome(
            claimed, "retrying", error=text, reason="timeout", retry_after_s=decision.after_s or 0.0
        )
    return Outcome(claimed, "failed", error=text, reason="timeout")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
