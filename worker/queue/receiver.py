"""Turns doorbells and polls into running jobs: claim what fits into the free slots, ack, run, hand in the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import SQLAlchemyError
from taskiq.receiver import Receiver

from worker.ending import end, until
from worker.joblogs.claims import Claimed
from worker.joblogs.execute import Call, execute
from worker.joblogs.finishes import Outcome
from worker.joblogs.hold import Hold, Why
from worker.joblogs.models import JobLog
from worker.joblogs.recorder import Recorder
from worker.queue.dependencies import call_with_dependencies
from worker.queue.lanes import RESCUE, Lane, QueueChoice, in_turn, lanes_of
from worker.queue.port import Delivery, Listener
from worker.queue.slots import Execution, Slots

if TYPE_CHECKING:
    from worker.engine import Engine

log = structlog.get_logger(__name__)

DATABASE_TROUBLE = (SQLAlchemyError, OSError)
POLL_S = 5.0
POLL_HUNGRY_S = 1.0
RESCUED = Lane("any", RESCUE)
BELLS_FIRST_S = 0.05
"""Between two looks that filled every slot: doorbells that are there come first, and then looking is not needed."""
RECONCILE_S = 5.0
RECONCILE_ALONE_S = 2.0
"""While the broker is away: a wish to cancel then arrives only by looking."""
NOT_MINE_NAK_S = 1.0
NOT_MINE_NAKS = 5
DRAIN_S = 25.0
LAST_WORDS_S = 5.0


class JobReceiver(Receiver):
    """Taskiq's receiver with its heart replaced: the database decides who runs what, the broker only wakes."""

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        *,
        queues: Sequence[QueueChoice],
        priorities: tuple[int, int] = (0, 9),
        concurrency: int = 10,
        changed: Callable[[], None] = lambda: None,
        drain_s: float = DRAIN_S,
    ) -> None:
        """`changed` is told whenever the set of held jobs changed."""
        super().__init__(engine.broker, run_startup=False, max_async_tasks=concurrency)
        self.engine = engine
        self.recorder = recorder
        self.slots = Slots(concurrency)
        self.drain_s = drain_s
        self._release_at: float | None = None
        self._queues = queues
        self._priorities = priorities
        self._changed = changed
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="job")
        self._call: Call = functools.partial(call_with_dependencies, engine.broker, self._threads)
        self._listener: Listener | None = None
        self._freed = asyncio.Event()
        self._heard_at = 0.0
        self._not_mine: dict[UUID, int] = {}
        self._unheld: set[UUID] = set()
        self._left = False
        self._claims: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> list[Execution]:
        return list(self.slots.held.values())

    async def listen(self, finish_event: asyncio.Event) -> None:
        """Takes jobs until `finish_event`, then drains: waits, releases the rest, and returns when all is written.

        Raises:
            EndedUnasked: a part of it had ended before; what ran is drained all the same.
        """
        self._listener = self.engine.doorbells.listen(self._lanes(), self.slots.free, self._lanes)
        self.engine.doorbells.on_signal(self.recorder.worker_id, self.control)
        loops = [
            asyncio.create_task(loop(), name=loop.__name__)
            for loop in (self._hear, self._polls, self._reconciles)
        ]
        try:
            await until(finish_event, *loops)
        finally:
            self.slots.closed = True
            await end(*loops[:2])
            await self._listener.close()
            await self._drain()
            await end(loops[2])

    def let_run(self, seconds: float) -> None:
        """At the end, what runs may go on for so long from now. Asked again, the new time counts."""
        self._release_at = time.monotonic() + seconds

    def serve(self, queues: Sequence[QueueChoice]) -> None:
        """Takes from these queues from now on; the recorder's scope must hold them too."""
        self._queues = queues
        if self._listener is not None:
            self._listener.add(self._lanes())

    async def callback(self, message: Any, raise_err: bool = False) -> None:
        """One doorbell on its own; `listen` takes them in batches."""
        await self._claim([message])

    async def control(self, message: dict[str, Any]) -> None:
        """A control message: `{"cancel": job id, "epoch": n}`."""
        execution = self.slots.held.get(UUID(message["cancel"])) if "cancel" in message else None
        if execution is not None and execution.hold.claimed.epoch == message.get("epoch"):
            self._ask(execution, "cancel")

    # Taking

    async def _hear(self) -> None:
        assert self._listener is not None
        while not self.slots.closed:
            deliveries = await self._listener.take()
            self._heard_at = time.monotonic()
            self.slots.claiming += len(deliveries)
            task = asyncio.create_task(self._claim_reserved(deliveries))
            self._claims.add(task)
            task.add_done_callback(self._claims.discard)

    async def _claim_reserved(self, deliveries: Sequence[Delivery]) -> None:
        try:
            await self._claim(deliveries)
        finally:
            self.slots.claiming -= len(deliveries)
            self._wake()

    async def _claim(self, deliveries: Sequence[Delivery]) -> None:
        try:
            answers = await asyncio.gather(*(self.recorder.claim(d.job_id) for d in deliveries))
        except DATABASE_TROUBLE as error:
            log.warning("The database did not answer a claim; the jobs stay queued", error=_first_line(error))
            for delivery in deliveries:
                await delivery.nak(2.0)
            return
        for claimed in answers:
            if claimed is not None:
                self._start(claimed)
        refused = {d.job_id: d for d, claimed in zip(deliveries, answers, strict=True) if claimed is None}
        for delivery in deliveries:
            if delivery.job_id not in refused:
                await delivery.ack()
        if refused:
            await self._answer_refused(refused)

    async def _answer_refused(self, refused: dict[UUID, Delivery]) -> None:
        """Somebody else's by now: ack. Queued, but of a kind that only other workers know: give them a chance first."""
        try:
            others = await self._for_others(list(refused))
        except DATABASE_TROUBLE:
            others = set()
        for job_id, delivery in refused.items():
            times = self._not_mine.get(job_id, 0) + 1
            if job_id not in others or times > NOT_MINE_NAKS:
                self._not_mine.pop(job_id, None)
                await delivery.ack()
            else:
                self._not_mine[job_id] = times
                await delivery.nak(NOT_MINE_NAK_S)

    async def _for_others(self, job_ids: Sequence[UUID]) -> set[UUID]:
        scope = self.recorder.scope
        statement = sa.select(JobLog.id).where(
            JobLog.id.in_(job_ids),
            JobLog.status == "queued",
            sa.or_(
                JobLog.job_name.not_in(scope.names), JobLog.priority < scope.low, JobLog.priority > scope.high
            ),
        )
        database = self.engine.database
        async with database.patience(), database.read() as connection:
            return set(await connection.scalars(statement))

    async def _polls(self) -> None:
        """Every 5 s; every second when nothing is heard; then very soon again if the last look filled every slot.

        While only the slot that is kept for rescued jobs is free it looks for those: their doorbell may be lost too.
        """
        last, full, last_rescued = -POLL_S, False, -POLL_S
        while not self.slots.closed:  # a cancelled statement may end as an error of the database
            now = time.monotonic()
            away = not self.engine.doorbells.connected
            silent = away or now - self._heard_at > POLL_HUNGRY_S
            again_s = (0.0 if away else BELLS_FIRST_S) if full else POLL_HUNGRY_S
            due = last + (again_s if silent else POLL_S)
            if (asked := self.slots.free()) == 0:
                kept = self.slots.free(RESCUED)
                if kept == 0 or now < last_rescued + (POLL_HUNGRY_S if away else POLL_S):
                    await self._until_free()
                else:
                    last_rescued = now
                    await self._poll(kept, rescued=True)
            elif now < due:
                await asyncio.sleep(min(due - now, POLL_HUNGRY_S))
            else:
                last, full = now, await self._poll(asked) >= asked

    async def _poll(self, limit: int, *, rescued: bool = False) -> int:
        self.slots.claiming += limit
        try:
            queues = in_turn(self._queues, random.random)
            found = await self.recorder.poll(limit, queues, rescued=rescued)
        except DATABASE_TROUBLE as error:
            log.warning("The database did not answer a poll", error=_first_line(error))
            return 0
        finally:
            self.slots.claiming -= limit
        for claimed in found:
            self._start(claimed)
        self._wake()
        return len(found)

    async def _until_free(self) -> None:
        self._freed.clear()
        timer = asyncio.get_running_loop().call_later(POLL_HUNGRY_S, self._freed.set)
        await self._freed.wait()
        timer.cancel()

    # Running

    def _start(self, claimed: Claimed) -> None:
        hold = Hold(self.engine, claimed, self.recorder.notes, self.recorder.worker_id)
        execution = Execution(hold, rescue=claimed.lane != "normal")
        hold.on_ask(functools.partial(self._asked, execution))
        self.slots.start(execution)
        execution.task = asyncio.create_task(self._run(execution))
        if claimed.cancel_requested_at is not None:
            hold.ask("cancel")
        self._changed()

    async def _run(self, execution: Execution) -> None:
        hold = execution.hold
        try:
            outcome = await execute(hold, self._call, self.recorder.keep)
        except Exception as error:
            log.exception("A job could not be run: a bug of the desk", job_id=str(execution.id))
            outcome = Outcome(
                hold.claimed, "failed", error=f"{type(error).__name__}: {error}", reason="error"
            )
        if self._left:  # cut off by the end of the loop, not ended: what becomes of it is the parent's to say
            return
        self.slots.stopped(execution)
        self._wake()
        try:
            await self._finish(outcome)
        finally:
            self.slots.written(execution)
            self._changed()

    async def _finish(self, outcome: Outcome) -> None:
        """Tries for as long as this process lives: while it holds the job, nobody else runs it."""
        while True:
            try:
                await self.recorder.finish(outcome)
            except DATABASE_TROUBLE as error:
                log.warning(
                    "The end of a job is not written yet",
                    job_id=str(outcome.claimed.id),
                    error=_first_line(error),
                )
                await asyncio.sleep(1)
            else:
                return

    # Stopping what runs

    def _ask(self, execution: Execution, why: Why) -> None:
        if execution.running:
            execution.hold.ask(why)

    def _asked(self, execution: Execution) -> None:
        execution.asked_at = time.monotonic()
        self._changed()

    async def _reconciles(self) -> None:
        """Compares what is held with what the database says is held."""
        while True:
            await asyncio.sleep(RECONCILE_S if self.engine.doorbells.connected else RECONCILE_ALONE_S)
            try:
                await self.reconcile()
            except DATABASE_TROUBLE as error:
                log.warning("The held jobs could not be compared", error=_first_line(error))

    async def reconcile(self) -> None:
        """Hears wishes to cancel that got lost, stops what is no longer held, adopts what a lost answer left behind."""
        before = [execution for execution in self.held if execution.running]
        settled = not self.slots.claiming
        rows = {row.id: row for row in await self.recorder.held()}
        for execution in before:
            row = rows.get(execution.id)
            if row is None or row.epoch != execution.hold.claimed.epoch:
                self._ask(execution, "lost")
            elif row.cancel_requested_at is not None:
                self._ask(execution, "cancel")
        unheld = {job_id for job_id in rows if job_id not in self.slots.held} if settled else set()
        for job_id in unheld & self._unheld:
            if self.slots.free() > 0 and not self.slots.claiming:
                log.warning("Adopting a job whose claim got lost on its way", job_id=str(job_id))
                self._start(rows[job_id])
        self._unheld = unheld

    async def _drain(self) -> None:
        """Waits for what runs as long as `let_run` says, then releases it; what cannot stop is left to the parent."""
        await asyncio.gather(*self._claims, return_exceptions=True)
        gives_back = asyncio.create_task(self._give_back())
        by_default = time.monotonic() + self.drain_s
        await self._wait(lambda: by_default if self._release_at is None else self._release_at)
        for execution in self.held:
            self._ask(execution, "release")
        last = time.monotonic() + LAST_WORDS_S
        await self._wait(lambda: last)
        await asyncio.wait([gives_back], timeout=max(0.0, last - time.monotonic()))
        await end(gives_back)
        self._left = True
        if left := [str(execution.id) for execution in self.held]:
            log.warning("These jobs did not stop; this process ends under them", jobs=left)
        await self.recorder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _give_back(self) -> None:
        """Puts back what a poll had taken when it was cut off: nobody has begun it."""
        mine = set(self.slots.held)
        with contextlib.suppress(*DATABASE_TROUBLE):
            for claimed in await self.recorder.held():
                if claimed.id not in mine:
                    await self.recorder.finish(Outcome(claimed, "queued", reason="released"))

    async def _wait(self, until: Callable[[], float]) -> None:
        """Until nothing is held or that moment, which may come sooner than it was to at first."""
        while self.slots.held and (left := until() - time.monotonic()) > 0:
            tasks = [execution.task for execution in self.held if execution.task is not None]
            await asyncio.wait(tasks, timeout=min(left, 0.5))

    def _wake(self) -> None:
        self._freed.set()
        if self._listener is not None:
            self._listener.wake()

    def _lanes(self) -> list[Lane]:
        """Rescued jobs of every queue first, then queue by queue."""
        lanes = [
            lane for name in in_turn(self._queues, random.random) for lane in lanes_of(name, self._priorities)
        ]
        return sorted(lanes, key=lambda lane: not lane.rescue)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
