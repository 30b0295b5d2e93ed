"""A trace of the model through the real actions on a real database: the same answers and the same rows, step by step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from tests.worker.joblogs.simulation.model import LEASE_S, Held
from tests.worker.joblogs.simulation.world import Call, Step, World
from worker.accounts.actor import Actor
from worker.db.base import new_id
from worker.db.session import Database
from worker.errors import NotAllowedNow, TooLate
from worker.events.models import OutboxRow
from worker.joblogs import actions, sweeper
from worker.joblogs.claims import Claimed, Scope, claim_ids, claim_oldest, held_rows
from worker.joblogs.counters import by_status
from worker.joblogs.finishes import Outcome, write_outcomes
from worker.joblogs.models import JobCounter, JobCounterDelta, JobLog
from worker.jobs.models import JobCatalogue
from worker.process import presence
from worker.process.models import Worker

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
ADA = Actor("ada", role="operator")
NORMAL, FRAGILE = "add", "mail"
SCOPE = Scope((NORMAL, FRAGILE), ("default",))
SEEN = (
    JobLog.id, JobLog.status, JobLog.epoch, JobLog.attempt, JobLog.lost_count, JobLog.died_alone, JobLog.lane,
    JobLog.reason,
)  # fmt: skip


class Differs(AssertionError):
    """The database did something else than the model."""


class Replay:
    """One trace on one database. Its times are arguments of the calls; the wall clock is not looked at."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = 0.0
        self.jobs: list[UUID] = []
        self.workers: dict[int, UUID] = {}
        self.beats: Counter[int] = Counter()
        self.claims: dict[tuple[int, int], Claimed] = {}
        self.observations = sweeper.Observations(LEASE_S)
        database.clock = lambda: BEGIN + timedelta(seconds=self.now)

    async def empty(self) -> None:
        """What another trace left behind must not be swept in this one."""
        async with self.database.transaction() as session:
            for table in (JobLog, JobCounter, JobCounterDelta, OutboxRow, Worker, JobCatalogue):
                await session.execute(sa.delete(table))
            session.add(
                JobCatalogue(
                    name=FRAGILE, module="m", queue="default", on_lost="fail", first_seen_at=BEGIN,
                    advertised_at=BEGIN,
                )
            )  # fmt: skip

    async def run(self, calls: Sequence[Call]) -> None:
        for number, call in enumerate(calls):
            self.now = call.now
            answer = await getattr(self, call.name)(*call.arguments)
            where = f"call {number}, {call.name}{call.arguments} at {call.now:.2f} s"
            if answer != call.answer:
                raise Differs(f"{where}: the database answered {answer!r}, the model {call.answer!r}")
            for job, (found, wanted) in enumerate(zip(await self._rows(), call.rows, strict=True)):
                if found != wanted:
                    raise Differs(f"{where}: job {job} is {found}, in the model {wanted}")

    async def check_events(self, world: World) -> None:
        """The outbox holds what the model told, job by job; the counters count what is there."""
        events = await self._events()
        for job, row in enumerate(world.model.jobs):
            if events.get(str(self.jobs[job]), []) != row.events:
                raise Differs(
                    f"events of job {job}: {events[str(self.jobs[job])]}, in the model {row.events}"
                )
        async with self.database.read() as connection:
            rows = await connection.execute(sa.select(JobLog.status, sa.func.count()).group_by(JobLog.status))
            if (counted := await by_status(connection)) != dict(rows.tuples().all()):
                raise Differs(f"the counters say {counted}")

    # The actions, as the model names them

    async def enter(self, worker: int) -> None:
        self.workers[worker] = new_id()
        async with self.database.transaction() as session:
            at = await self.database.now(session)
            session.add(
                Worker(id=self.workers[worker], kind="worker", host="h", pid=1, beat_at=at, started_at=at)
            )

    async def beat(self, worker: int, holds: frozenset[tuple[int, int]]) -> bool:
        self.beats[worker] += 1
        held = [[str(self.jobs[job]), epoch] for job, epoch in sorted(holds)]
        beat = presence.Beat(self.workers[worker], self.beats[worker], held, len(held), None)
        return self.workers[worker] not in await presence.beat(self.database, [beat])

    async def enqueue(self, delay_s: float, max_retries: int, fragile: bool) -> int:
        name = FRAGILE if fragile else NORMAL
        async with self.database.transaction() as session:
            run_at = self._at(delay_s) if delay_s > 0 else None
            job = await actions.enqueue(
                session, name, {}, queue="default", run_at=run_at, max_retries=max_retries
            )
        self.jobs.append(job.id)
        return len(self.jobs) - 1

    async def claim(self, worker: int, job: int) -> Held | None:
        got = await claim_ids(self.database, self.workers[worker], SCOPE, [self.jobs[job]])
        return self._held(got[0]) if got else None

    async def poll(self, worker: int, limit: int) -> list[Held]:
        got = claim_oldest(self.database, self.workers[worker], SCOPE, "default", limit)
        return [self._held(claimed) async for claimed in got]

    async def held(self, worker: int) -> list[Held]:
        rows = await held_rows(self.database, self.workers[worker])
        return sorted((self._held(claimed) for claimed in rows), key=lambda held: held.job)

    async def finish(self, worker: int, held: Held, how: Any, after_s: float | None) -> bool:
        claimed = self.claims[(held.job, held.epoch)]
        reason = None if how in ("success", "lost") else how
        outcome = Outcome(claimed, how, error="x", reason=reason, retry_after_s=after_s)
        [written] = await write_outcomes(self.database, self.workers[worker], [outcome])
        return written

    async def promote(self) -> int:
        return await sweeper.promote_due(self.database)

    async def rescue(self, worker: int, chance: float) -> int:
        return await sweeper.rescue_worker(self.database, self.workers[worker], "test", lambda: chance)

    async def orphans(self, chance: float) -> int:
        return await sweeper.rescue_orphans(self.database, lambda: chance)

    async def unheld(self, chance: float) -> int:
        return await sweeper.rescue_unheld(self.database, lambda: chance)

    async def sweep(self, chance: float) -> int:
        return await sweeper.rescue_lost(self.database, self.observations, self.now, lambda: chance)

    async def cancel(self, job: int) -> str:
        try:
            async with self.database.transaction() as session:
                return await actions.cancel(session, self.jobs[job], actor=ADA)
        except TooLate:
            return "too late"

    async def retry(self, job: int, seen_epoch: int | None) -> str:
        try:
            async with self.database.transaction() as session:
                before = (await actions.one(session, self.jobs[job])).epoch
                after = await actions.retry(session, self.jobs[job], actor=ADA, epoch=seen_epoch)
                return "queued" if after.epoch > before else "already"
        except NotAllowedNow:
            return "not now"

    async def move(self, job: int, delay_s: float) -> str:
        try:
            async with self.database.transaction() as session:
                await actions.edit(session, self.jobs[job], actor=ADA, run_at=self._at(delay_s))
        except NotAllowedNow:
            return "not now"
        return "moved"

    # Looking

    def _at(self, delay_s: float) -> datetime:
        return BEGIN + timedelta(seconds=self.now + delay_s)

    def _held(self, claimed: Claimed) -> Held:
        job = self.jobs.index(claimed.id)
        self.claims[(job, claimed.epoch)] = claimed
        return Held(job, claimed.epoch, claimed.attempt, claimed.lost_count)

    async def _rows(self) -> list[tuple[Any, ...]]:
        async with self.database.read() as connection:
            rows = await connection.execute(sa.select(*SEEN).where(JobLog.id.in_(self.jobs)))
            found = {row[0]: tuple(row[1:]) for row in rows}
        return [found[job_id] for job_id in self.jobs]

    async def _events(self) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        async with self.database.session() as session:
            for row in await session.scalars(sa.select(OutboxRow).order_by(OutboxRow.id)):
                for event in row.events:
                    if event["event_type"].startswith("job."):
                        told.setdefault(event["data"]["job_id"], []).append(event["event_type"])
        return told


async def shortest(steps: Sequence[Step], fails: Any, within_s: float = 30.0) -> list[Step]:
    """Leaves out whatever is not needed for `fails(steps)` to stay true, as far as it gets in this time."""
    kept, size = list(steps), max(1, len(steps) // 2)
    end = time.monotonic() + within_s
    while size and time.monotonic() < end:
        start = 0
        while start < len(kept):
            fewer = kept[:start] + kept[start + size :]
            if await fails(fewer):
                kept = fewer
            else:
                start += size
        size //= 2
    return kept
