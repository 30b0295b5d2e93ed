"""One worker process's hand in the database: claims and finishes, batched over its slots without timers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from worker.batch import MicroBatch
from worker.db.session import Database, will_pass
from worker.joblogs.claims import Claimed, Scope, claim_ids, claim_oldest, held_rows
from worker.joblogs.finishes import Outcome, unstorable, write_outcomes
from worker.joblogs.journal import Journal
from worker.joblogs.models import JobAttempt, JobLog
from worker.joblogs.next_starts import NextStarts
from worker.joblogs.notes import Notes
from worker.process.models import Worker

__all__ = ["Claimed", "Outcome", "Recorder", "Scope"]

CLAIM_BATCH = 200
FINISH_BATCH = 200

Trace = tuple[UUID, int, str]
"""A job, an epoch, and how that execution ended."""

log = structlog.get_logger(__name__)


class Recorder:
    """The only writer of a worker's jobs.

    `lease_s` bounds how long a finish is tried while the database is away; `journal` keeps what is not written yet.
    """

    def __init__(
        self,
        database: Database,
        worker_id: UUID,
        scope: Scope,
        *,
        lease_s: float = 15.0,
        journal: Journal | None = None,
    ) -> None:
        self.database = database
        self.worker_id = worker_id
        self.scope = scope
        self.notes = Notes(database, worker_id)
        self.next_starts = NextStarts(database)
        self.finished = 0
        self.stale = 0
        self._lease_s = lease_s
        self._journal = journal
        self._claims: MicroBatch[UUID, Claimed | None] = MicroBatch(self._claim_batch, CLAIM_BATCH)
        self._finishes: MicroBatch[Outcome, bool] = MicroBatch(self._finish_batch, FINISH_BATCH)

    async def claim(self, job_id: UUID) -> Claimed | None:
        """Claims one job, together with what others claim meanwhile; None when it is not this worker's to take."""
        return await self._claims.do(job_id)

    async def poll(
        self, limit: int, queues: Sequence[str] | None = None, *, rescued: bool = False
    ) -> list[Claimed]:
        """Claims up to `limit` of the jobs that have waited longest, queue by queue in this order or the scope's.

        `rescued`: only such as were taken over from a dead worker. Where the database goes away in the middle, what was
        claimed by then is this worker's to run.
        """
        claimed: list[Claimed] = []
        try:
            for queue in self.scope.queues if queues is None else queues:
                if len(claimed) >= limit:
                    break
                await self._poll_queue(queue, limit, claimed, rescued=rescued)
        except (SQLAlchemyError, OSError) as error:
            if not claimed:
                raise
            log.warning("poll_cut_short", jobs=len(claimed), error=(str(error) or repr(error))[:200])
        return claimed

    async def held(self) -> list[Claimed]:
        """The running rows of this worker: what a claim whose answer was lost has left behind."""
        async with self.database.patience():
            return await held_rows(self.database, self.worker_id)

    def keep(self, outcome: Outcome) -> None:
        """Notes in the journal how an execution ended; `finish` does so too."""
        if self._journal is not None:
            self._journal.note(outcome)

    async def finish(self, outcome: Outcome) -> bool:
        """Writes how an execution ended; False when it was no longer this worker's to end, and nothing changed."""
        self.keep(outcome)
        await self.notes.settle(outcome.claimed)
        written = await self._finishes.do(outcome)
        if self._journal is not None:
            self._journal.settled(outcome)
        self.finished += written
        if not written:
            await self._stale(outcome)
        return written

    async def close(self) -> None:
        """Waits for the batches under way and writes the last notes."""
        await self._claims.drain()
        await self._finishes.drain()
        await self.next_starts.close()
        await self.notes.close()
        if self._journal is not None:
            self._journal.close()

    async def _poll_queue(self, queue: str, limit: int, claimed: list[Claimed], *, rescued: bool) -> None:
        """Adds to `claimed` one by one, so that an error leaves there what is committed."""
        left, again = limit - len(claimed), self.next_starts.after
        oldest = claim_oldest(self.database, self.worker_id, self.scope, queue, left, again, rescued=rescued)
        async with self.database.patience():
            async for job in oldest:
                claimed.append(job)  # noqa: PERF401 - an error in a comprehension would take them all

    async def _claim_batch(self, ids: Sequence[UUID]) -> list[Claimed | None]:
        async with self.database.patience():
            found = await claim_ids(
                self.database, self.worker_id, self.scope, list(set(ids)), self.next_starts.after
            )
        claimed = {job.id: job for job in found}
        return [claimed.pop(job_id, None) for job_id in ids]

    async def _finish_batch(
        self, outcomes: Sequence[Outcome], *, splits: bool = True
    ) -> Sequence[bool | BaseException]:
        """Tries again while the database is away and the lease lasts; splits a batch that holds an offender."""
        end = time.monotonic() + self._lease_s
        delay = 0.05
        while True:
            try:
                async with self.database.patience():
                    written = await write_outcomes(self.database, self.worker_id, outcomes)
                    return await self._found_written(outcomes, written)
            except (DBAPIError, OSError) as error:
                if isinstance(error, DBAPIError) and not will_pass(error):
                    if not splits:
                        raise
                    return await self._bisect(outcomes, error)
                for outcome in outcomes:
                    outcome.tried = True
                if time.monotonic() > end:
                    raise
                log.warning("finish_delayed", jobs=len(outcomes), error=(str(error) or repr(error))[:200])
            await asyncio.sleep(delay)
            delay = min(1.0, delay * 2)

    async def _found_written(self, outcomes: Sequence[Outcome], written: Sequence[bool]) -> list[bool]:
        """A commit whose answer was lost may have happened: then the database shows this very end, and it is not stale."""
        missed = [o.claimed.id for o, ok in zip(outcomes, written, strict=True) if o.tried and not ok]
        traces = await self._traces(missed) if missed else set()
        return [
            ok or (outcome.tried and not traces.isdisjoint(_traces_of(outcome)))
            for outcome, ok in zip(outcomes, written, strict=True)
        ]

    async def _traces(self, ids: Sequence[UUID]) -> set[Trace]:
        """Which ends of this worker the database shows: a success in its row, any other as an attempt, which stays."""
        success = sa.select(JobLog.id, JobLog.epoch, JobLog.status).where(
            JobLog.id.in_(ids), JobLog.worker_id == self.worker_id, JobLog.status == "success"
        )
        others = sa.select(JobAttempt.job_id, JobAttempt.epoch, JobAttempt.outcome).where(
            JobAttempt.job_id.in_(ids), JobAttempt.worker_id == self.worker_id
        )
        async with self.database.read() as connection:
            return {
                (row[0], row[1], row[2])
                for statement in (success, others)
                for row in await connection.execute(statement)
            }

    async def _bisect(self, outcomes: Sequence[Outcome], error: DBAPIError) -> Sequence[bool | BaseException]:
        if len(outcomes) == 1:
            return await self._finish_batch([unstorable(outcomes[0], error)], splits=False)
        middle = len(outcomes) // 2
        return [*await self._half(outcomes[:middle]), *await self._half(outcomes[middle:])]

    async def _half(self, outcomes: Sequence[Outcome]) -> Sequence[bool | BaseException]:
        """What this half meets does not concern the other, which may be written already."""
        try:
            return await self._finish_batch(outcomes)
        except (DBAPIError, OSError) as error:
            return [error] * len(outcomes)

    async def _stale(self, outcome: Outcome) -> None:
        """A result that came too late is dropped, counted and said; one that cannot be counted goes with the next count."""
        self.stale += 1
        job = outcome.claimed
        log.warning("stale_finish", job_id=str(job.id), epoch=job.epoch, status=outcome.status)
        count = self.stale
        newer = sa.update(Worker).where(Worker.id == self.worker_id, Worker.stale_finishes < count)
        try:
            async with self.database.patience(), self.database.transaction() as session:
                statement = newer.values(stale_finishes=count)
                await session.execute(statement.execution_options(synchronize_session=False))
        except (SQLAlchemyError, OSError) as error:
            log.warning("stale_finish_not_counted", count=count, error=(str(error) or repr(error))[:200])


def _traces_of(outcome: Outcome) -> set[Trace]:
    """What an end leaves behind: being cut off or asked to cancel may have made another end of it."""
    words = {
        "queued": ("released",),
        "released": ("released", "failed"),
        "lost": ("lost", "failed"),
    }.get(outcome.status, (outcome.status,))
    return {(outcome.claimed.id, outcome.claimed.epoch, word) for word in (*words, "cancelled")}
