"""What has come due, what has died, what nobody can run: actions that any number of clerks may do at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import Time, new_id
from worker.db.session import Database, Doorbell, changed, emit, ring
from worker.joblogs.counters import Key, count, moved
from worker.joblogs.enqueue import event_data
from worker.joblogs.limits import ring_limited
from worker.joblogs.losses import HOPELESS_AFTER, after_loss, is_overdue, lane_after
from worker.joblogs.models import JobAttempt, JobLog
from worker.joblogs.storable import fingerprint
from worker.jobs.models import JobCatalogue
from worker.jobs.retry import RetryPolicy
from worker.process.models import Worker
from worker.process.presence import SETTLED_AFTER, has_settled

BATCH = 500
UNKNOWN_AFTER = timedelta(hours=1)
ADOPTION_TIME = timedelta(seconds=10)
OVERDUE = "TimeoutError: it ran longer than its limit of {:g} s and did not stop when it was asked; its process was ended."

Chance = Callable[[], float]

log = structlog.get_logger(__name__)


async def promote_due(database: Database) -> int:
    """Queues scheduled and retrying jobs whose time has come; answers how many."""
    if not await database.any(
        JobLog, JobLog.status.in_(("scheduled", "retrying")), JobLog.run_at <= _soon(database)
    ):
        return 0
    async with database.transaction() as session:
        now = await database.now(session)
        due = (
            sa.select(JobLog.id, JobLog.status)
            .where(JobLog.status.in_(("scheduled", "retrying")), JobLog.run_at <= now)
            .order_by(JobLog.run_at)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        before = {row.id: row.status for row in await session.execute(due)}
        if not before:
            return 0
        rows = await _update(session, before, status="queued")
        counts: Counter[Key] = Counter()
        for row in rows:
            moved(counts, row, before[row.id], "queued")
            _told(session, row, "job.queued")
            ring(session, [Doorbell(row.id, row.queue, row.priority)])
        count(session, counts)
        return len(rows)


def _soon(database: Database) -> sa.ColumnElement[datetime]:
    """The database's own now, asked in the statement; a literal where this process's clock is the one that counts."""
    return sa.func.clock_timestamp() if database.clock is None else sa.literal(database.clock(), Time)


async def rescue_worker(
    database: Database,
    worker_id: UUID,
    reason: str,
    chance: Chance = random.random,
    *,
    lost: bool = True,
    silent_since: int | None = None,
) -> int:
    """Ends a dead worker's row and takes its running jobs back; answers how many. Doing it twice changes nothing.

    `chance` draws the jitter of a retry, from [0, 1). `lost`: nobody asked the process to end, which is told.
    `silent_since`: the last beat, where nothing but silence says that it is dead; one that has beaten since lives on.
    """
    silent = sa.true() if silent_since is None else Worker.beat == silent_since
    async with database.transaction() as session:
        now = await database.now(session)
        ended = await session.execute(
            sa.update(Worker)
            .where(Worker.id == worker_id, Worker.ended_at.is_(None), silent)
            .values(ended_at=now, end_reason=reason[:200], rev=Worker.rev + 1)
            .returning(Worker.kind, Worker.host, Worker.pid)
            .execution_options(synchronize_session=False)
        )
        process = ended.first()
        if process is None and silent_since is not None:
            return 0
        changed(session, "worker", worker_id, int(now.timestamp() * 1000))
        held = sa.select(JobLog).where(JobLog.status == "running", JobLog.worker_id == worker_id)
        rescued = await _rescue(session, held, now, reason, chance)
        if process is not None and lost:
            data = {"worker_id": str(worker_id), **process._asdict(), "reason": reason, "jobs": rescued}
            emit(session, "worker.lost", data)
        return rescued


async def rescue_orphans(database: Database, chance: Chance = random.random) -> int:
    """Takes back running jobs whose worker's row has ended or is gone; answers how many."""
    living = sa.select(Worker.id).where(Worker.ended_at.is_(None))
    orphan = sa.and_(
        JobLog.status == "running", sa.or_(JobLog.worker_id.is_(None), JobLog.worker_id.not_in(living))
    )
    if not await database.any(JobLog, orphan):
        return 0
    async with database.transaction() as session:
        now = await database.now(session)
        return await _rescue(session, sa.select(JobLog).where(orphan), now, "its worker had ended", chance)


async def rescue_unheld(database: Database, chance: Chance = random.random) -> int:
    """Takes back running jobs that their living worker says it does not hold, ten seconds after it claimed them.

    The answer to such a claim got lost, and the worker had no free slot to adopt it since. A list that is older than the
    claim says nothing: whoever blocks a worker's loop keeps what it holds.
    """
    async with database.read() as connection:
        rows = await connection.execute(
            sa.select(JobLog.id, JobLog.epoch, JobLog.started_at, Worker.held, Worker.held_at)
            .join(Worker, Worker.id == JobLog.worker_id)
            .where(JobLog.status == "running", Worker.ended_at.is_(None), Worker.held_at.is_not(None))
        )
        unheld = [row for row in rows if is_unheld(row.id, row.epoch, row.started_at, row.held, row.held_at)]
    if not unheld:
        return 0
    same = sa.tuple_(JobLog.id, JobLog.epoch).in_([(row.id, row.epoch) for row in unheld])
    async with database.transaction() as session:
        now = await database.now(session)
        still = sa.select(JobLog).where(JobLog.status == "running", same)
        return await _rescue(session, still, now, "it does not hold it", chance)


def is_unheld(job_id: UUID, epoch: int, started_at: datetime, held: Sequence[Any], held_at: datetime) -> bool:
    """Whether a worker's list, newer than the claim by the time that an adoption may take, lacks the job. Pure."""
    return held_at - started_at > ADOPTION_TIME and [str(job_id), epoch] not in [list(each) for each in held]


async def _rescue(
    session: AsyncSession, lost: sa.Select[tuple[JobLog]], now: datetime, reason: str, chance: Chance
) -> int:
    """A loss burns no retry; the epoch grows, so whatever the dead one still sends is stale."""
    lost = lost.order_by(JobLog.id).limit(BATCH).with_for_update(skip_locked=True)
    jobs = (await session.scalars(lost.execution_options(populate_existing=True))).all()
    offers = await _on_loss(session, {job.job_name for job in jobs})
    fragile = {name for name, (on_lost, _) in offers.items() if on_lost == "fail"}
    last_seen = await _last_seen(session, {job.worker_id for job in jobs})
    counts: Counter[Key] = Counter()
    for job in jobs:
        overdue = is_overdue(job, last_seen.get(job.worker_id) if job.worker_id else None)
        ended = await _ended_meanwhile(session, job)
        status, why = after_loss(job, fragile=job.job_name in fragile, overdue=overdue, ended=ended)
        words = OVERDUE.format(job.timeout_s) if overdue else f"Its worker died under it ({reason})."
        session.add(_lost_attempt(job, now, status if overdue else "lost", why or "worker_lost", words))
        _put(job, status, why, words, now, offers.get(job.job_name, ("restart", RetryPolicy()))[1], chance())
        if status == "queued":
            ring(session, [Doorbell(job.id, job.queue, job.priority, rescue=True)])
        moved(counts, job, "running", status)
        if not overdue:
            emit(session, "job.lost", event_data(job), job.user_id)
        _told(session, job, f"job.{status}")
    count(session, counts)
    await session.flush()
    await ring_limited(session, [(job.id, job.job_name, job.queue) for job in jobs if job.status != "queued"])
    if jobs:
        log.warning("jobs_rescued", jobs=len(jobs), reason=reason)
    return len(jobs)


async def _last_seen(session: AsyncSession, worker_ids: set[UUID | None]) -> dict[UUID, datetime]:
    """When each of these processes was last known to live; one whose row is gone is left out."""
    rows = await session.execute(sa.select(Worker.id, Worker.beat_at).where(Worker.id.in_(worker_ids)))
    return dict(rows.tuples().all())


async def _ended_meanwhile(session: AsyncSession, job: JobLog) -> int:
    """How many workers have ended since the first of the job's last twenty losses, of which this is the latest; 0 if it has fewer."""
    if job.lost_count + 1 < HOPELESS_AFTER:
        return 0
    first = (
        sa.select(JobAttempt.ended_at)
        .where(JobAttempt.job_id == job.id, JobAttempt.outcome == "lost")
        .order_by(JobAttempt.epoch.desc())
        .limit(1)
        .offset(HOPELESS_AFTER - 2)
    ).scalar_subquery()
    ended = sa.select(sa.func.count()).where(Worker.kind != "clerk", Worker.ended_at >= first)
    return await session.scalar(ended) or 0


def _put(
    job: JobLog, status: str, why: str | None, words: str, now: datetime, policy: RetryPolicy, chance: float
) -> None:
    """Writes the rescued row's columns. The epoch grows, so whatever the dead process still sends is stale."""
    job.status, job.reason = status, why
    job.rev += 1
    if status == "queued":
        job.lost_count += 1
        job.epoch, job.attempt, job.progress, job.progress_note = job.epoch + 1, job.attempt - 1, None, None
        job.lane = lane_after(job.lost_count)
        return
    if status == "retrying":
        job.epoch, job.error = job.epoch + 1, words
        job.run_at = now + timedelta(seconds=policy.delay(job.attempt, chance))
        return
    job.completed_at = now
    job.lost_count += why in ("poison", "worker_lost")
    if status == "failed":
        job.error, job.error_fingerprint = words, fingerprint(job.job_name, why or words, None)


async def fail_unknown(database: Database, now: datetime | None = None) -> int:
    """Fails jobs that waited an hour in which no live worker knew their name; answers how many.

    One that takes from their queue must have settled: after a stop of all workers jobs were accepted whose workers are
    still on their way.
    """
    async with database.transaction() as session:
        now = now or await database.now(session)
        known, tended = await _offered(session, now)
        recent = sa.select(JobCatalogue.name).where(JobCatalogue.advertised_at > now - UNKNOWN_AFTER)
        stuck = (
            sa.select(JobLog)
            .where(
                JobLog.status == "queued",
                JobLog.run_at < now - UNKNOWN_AFTER,
                JobLog.queue.in_(tended),
                JobLog.job_name.not_in(known),
                JobLog.job_name.not_in(recent),
            )
            .order_by(JobLog.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        jobs = (await session.scalars(stuck)).all()
        counts: Counter[Key] = Counter()
        for job in jobs:
            job.status, job.reason, job.completed_at, job.rev = "failed", "unknown_job", now, job.rev + 1
            job.error = f"No worker has offered a job called {job.job_name!r} for an hour."
            job.error_fingerprint = fingerprint(job.job_name, "unknown_job", None)
            moved(counts, job, "queued", "failed")
            _told(session, job, "job.failed")
        count(session, counts)
        return len(jobs)


async def _offered(session: AsyncSession, now: datetime) -> tuple[set[str], set[str]]:
    """The jobs that live workers know, and the queues that settled ones take from.

    The row of a host that lost its power looks alive until somebody has watched it for a lease; its beat does not.
    """
    columns = (Worker.kind, Worker.jobs, Worker.queues, Worker.started_at, Worker.beat_at)
    rows = (await session.execute(sa.select(*columns).where(Worker.ended_at.is_(None)))).all()
    tended = [
        row.queues
        for row in rows
        if row.kind != "clerk" and row.beat_at > now - SETTLED_AFTER and has_settled(row.started_at, now)
    ]
    return {name for row in rows for name in row.jobs}, {name for queues in tended for name in queues}


@dataclass(slots=True)
class Observations:
    """What one sweeper has seen of the workers' beats, by its own monotonic clock.

    A beat counts as stopped only after it stood still for the whole lease *while this sweeper's own round trips
    succeeded*: after a gap of its own it starts to watch anew, so a database outage never looks like dead workers.
    """

    lease_s: float
    seen: dict[UUID, tuple[int, float]] = field(default_factory=dict)
    last_sweep: float | None = None

    def stopped(self, beats: Iterable[tuple[UUID, int]], now: float) -> list[UUID]:
        """Which workers' beats have stood still for the lease. `now` is monotonic, in seconds."""
        if self.last_sweep is not None and now - self.last_sweep > max(1.0, self.lease_s / 3):
            self.seen.clear()
        self.last_sweep = now
        current = dict(beats)
        self.seen = {
            worker_id: self.seen[worker_id]
            if worker_id in self.seen and self.seen[worker_id][0] == beat
            else (beat, now)
            for worker_id, beat in current.items()
        }
        return [worker_id for worker_id, (_, since) in self.seen.items() if now - since >= self.lease_s]


async def rescue_lost(
    database: Database, observations: Observations, now: float, chance: Chance = random.random
) -> int:
    """One sweep: workers whose beat has stopped are declared dead, and orphans are taken back. `now` is monotonic.

    It looks in a transaction that could write: where SQLite's lock keeps this one out, it keeps out beats as well.
    """
    async with database.transaction() as session:
        rows = await session.execute(sa.select(Worker.id, Worker.beat).where(Worker.ended_at.is_(None)))
        beats = [(row[0], row[1]) for row in rows]
    dead = observations.stopped(beats, now)
    rescued = 0
    seen = dict(beats)
    for worker_id in dead:
        reason = f"no sign of life for {observations.lease_s:g} s"
        rescued += await rescue_worker(database, worker_id, reason, chance, silent_since=seen[worker_id])
    return rescued + await rescue_orphans(database, chance)


async def _update(session: AsyncSession, ids: Iterable[UUID], **values: Any) -> Sequence[Any]:
    """Sets values and raises the revision; answers the columns that events and rings need."""
    statement = (
        sa.update(JobLog)
        .where(JobLog.id.in_(list(ids)))
        .values(rev=JobLog.rev + 1, **values)
        .returning(
            JobLog.id, JobLog.job_name, JobLog.queue, JobLog.priority, JobLog.status, JobLog.attempt, JobLog.reason,
            JobLog.rev, JobLog.user_id,
        )
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return (await session.execute(statement)).all()


async def _on_loss(session: AsyncSession, names: set[str]) -> dict[str, tuple[str, RetryPolicy]]:
    """What these jobs asked for when their worker dies, and how soon they are tried again."""
    statement = sa.select(JobCatalogue.name, JobCatalogue.on_lost, JobCatalogue.retry)
    rows = await session.execute(statement.where(JobCatalogue.name.in_(names)))
    return {row.name: (row.on_lost, RetryPolicy(**row.retry)) for row in rows} if names else {}


def _lost_attempt(job: JobLog, now: datetime, outcome: str, reason: str, words: str) -> JobAttempt:
    return JobAttempt(
        id=new_id(), job_id=job.id, epoch=job.epoch, attempt=job.attempt, outcome=outcome, reason=reason,
        worker_id=job.worker_id, run_at=job.run_at, started_at=job.started_at, ended_at=now,
        error=words, traceback=None, retry_at=None,
    )  # fmt: skip


def _told(session: AsyncSession, row: Any, event_type: str) -> None:
    emit(session, event_type, event_data(row), row.user_id)
    changed(session, "job", row.id, row.rev)
