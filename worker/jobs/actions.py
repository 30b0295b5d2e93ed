"""Controls of queues and jobs: pause with a reason, resume, limits over all workers."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import utc_now
from worker.db.session import Doorbell, changed, emit, ring
from worker.errors import Invalid, NotFound
from worker.joblogs.models import JobLog
from worker.jobs.models import JobCatalogue, Queue
from worker.settings import WORD

RING_AT_RESUME = 500


async def pause_queue(session: AsyncSession, name: str, *, reason: str = "", actor: Actor) -> Queue:
    """Stops all workers from starting jobs of this queue; running ones go on.

    Raises:
        Invalid: it is no queue name, or the reason is longer than 500 characters.
    """
    queue = await _queue(session, name)
    _check_reason(reason)
    before = {"paused": queue.paused_at is not None, "reason": queue.pause_reason}
    queue.paused_at, queue.paused_by, queue.pause_reason = (
        queue.paused_at or utc_now(),
        actor.name,
        reason or None,
    )
    await _changed_queue(session, queue, "queue.paused", actor, before)
    return queue


async def resume_queue(session: AsyncSession, name: str, *, actor: Actor) -> Queue:
    """Lets workers take from this queue again, and rings for what waits."""
    queue = await _queue(session, name)
    before = {"paused": queue.paused_at is not None, "reason": queue.pause_reason}
    queue.paused_at, queue.paused_by, queue.pause_reason = None, None, None
    await _changed_queue(session, queue, "queue.resumed", actor, before)
    await _ring_waiting(session, JobLog.queue == name)
    return queue


async def set_queue_limit(
    session: AsyncSession, name: str, concurrency: int | None, *, actor: Actor
) -> Queue:
    """At most `concurrency` jobs of this queue run at a time over all workers; None lifts the limit."""
    queue = await _queue(session, name)
    _check_concurrency(concurrency)
    before = {"concurrency": queue.concurrency}
    queue.concurrency = concurrency
    await _changed_queue(session, queue, "queue.limited", actor, before)
    await _ring_waiting(session, JobLog.queue == name)
    return queue


async def pause_job(session: AsyncSession, name: str, *, reason: str = "", actor: Actor) -> JobCatalogue:
    """Stops all workers from starting this job.

    Raises:
        NotFound: no worker ever offered it; Invalid: the reason is too long.
    """
    job = await _job(session, name)
    _check_reason(reason)
    before = {"paused": job.paused_at is not None, "reason": job.pause_reason}
    job.paused_at, job.pause_reason = job.paused_at or utc_now(), reason or None
    await _changed_job(session, job, "catalogue.paused", actor, before)
    return job


async def resume_job(session: AsyncSession, name: str, *, actor: Actor) -> JobCatalogue:
    """Lets workers start this job again, and rings for what waits."""
    job = await _job(session, name)
    before = {"paused": job.paused_at is not None, "reason": job.pause_reason}
    job.paused_at, job.pause_reason = None, None
    await _changed_job(session, job, "catalogue.resumed", actor, before)
    await _ring_waiting(session, JobLog.job_name == name)
    return job


async def set_job_limit(
    session: AsyncSession, name: str, concurrency: int | None, *, actor: Actor
) -> JobCatalogue:
    """At most `concurrency` of this job run at a time over all workers; None lifts the limit."""
    job = await _job(session, name)
    _check_concurrency(concurrency)
    before = {"concurrency": job.concurrency}
    job.concurrency = concurrency
    await _changed_job(session, job, "catalogue.limited", actor, before)
    await _ring_waiting(session, JobLog.job_name == name)
    return job


async def _queue(session: AsyncSession, name: str) -> Queue:
    """The queue's row, locked; made when it had none yet, because every good name is a queue."""
    if not WORD.match(name):
        raise Invalid({"queue": f"{name[:80]!r} is not a queue name: a-z, 0-9, _ and -, at most 63"})
    queue = await session.get(Queue, name, with_for_update=True, populate_existing=True)
    if queue is None:
        queue = Queue(name=name, created_at=utc_now(), rev=0)
        session.add(queue)
    return queue


async def _job(session: AsyncSession, name: str) -> JobCatalogue:
    job = await session.get(JobCatalogue, name, with_for_update=True, populate_existing=True)
    if job is None:
        raise NotFound(noun="job", key=name)
    return job


def _check_reason(reason: str) -> None:
    if len(reason) > 500 or "\0" in reason:
        raise Invalid({"reason": f"{len(reason)} characters are too many: at most 500 are allowed"})


def _check_concurrency(concurrency: int | None) -> None:
    if concurrency is not None and not 1 <= concurrency <= 100_000:
        raise Invalid(
            {
                "concurrency": f"{concurrency} is not allowed: it must be from 1 to 100000, or empty for no limit"
            }
        )


async def _changed_queue(
    session: AsyncSession, queue: Queue, event: str, actor: Actor, before: Mapping[str, object]
) -> None:
    queue.rev += 1
    await session.flush()
    emit(session, event, {"queue": queue.name}, actor.name)
    changed(session, "queue", queue.name, queue.rev)
    after = {
        "paused": queue.paused_at is not None,
        "reason": queue.pause_reason,
        "concurrency": queue.concurrency,
    }
    await audit(session, actor, event, "queue", queue.name, before=before, after=after)


async def _changed_job(
    session: AsyncSession, job: JobCatalogue, event: str, actor: Actor, before: Mapping[str, object]
) -> None:
    job.rev += 1
    await session.flush()
    emit(session, event, {"job_name": job.name}, actor.name)
    changed(session, "catalogue", job.name, job.rev)
    after = {"paused": job.paused_at is not None, "reason": job.pause_reason, "concurrency": job.concurrency}
    await audit(session, actor, event, "catalogue", job.name, before=before, after=after)


async def _ring_waiting(session: AsyncSession, which: sa.ColumnElement[bool]) -> None:
    """Rings for the oldest waiting jobs; the workers' polls find the rest."""
    waiting = (
        sa.select(JobLog.id, JobLog.queue, JobLog.priority)
        .where(which, JobLog.status == "queued")
        .order_by(JobLog.id)
        .limit(RING_AT_RESUME)
    )
    ring(session, [Doorbell(row[0], row[1], row[2]) for row in await session.execute(waiting)])
