"""Controls of queues and jobs: pause with a reason, resume, limits over all workers."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import utc_now
from worker.db.session import changed, emit
from worker.errors import Invalid, NotFound
from worker.joblogs.edits import UNSET, Unset
from worker.joblogs.limits import ring_waiting
from worker.joblogs.models import JobLog
from worker.jobs.models import JobCatalogue, Queue
from worker.jobs.rate import MOST_BURST, is_rate
from worker.settings import WORD

RING_AT_RESUME = 500


async def pause_queue(session: AsyncSession, name: str, *, reason: str = "", actor: Actor) -> Queue:
    """Stops all workers from starting jobs of this queue; running ones go on.

    Raises:
        Invalid: it is no queue name, or the reason is longer than 500 characters.
    """
    queue = await _queue(session, name)
    _check_reason(reason)
    before = _queue_controls(queue)
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
    before = _queue_controls(queue)
    queue.paused_at, queue.paused_by, queue.pause_reason = None, None, None
    await _changed_queue(session, queue, "queue.resumed", actor, before)
    await ring_waiting(session, RING_AT_RESUME, JobLog.queue == name)
    return queue


async def set_queue_limit(
    session: AsyncSession, name: str, concurrency: int | None, *, actor: Actor
) -> Queue:
    """At most `concurrency` jobs of this queue run at a time over all workers; None lifts the limit."""
    queue = await _queue(session, name)
    _check_concurrency(concurrency)
    before = _queue_controls(queue)
    queue.concurrency = concurrency
    await _changed_queue(session, queue, "queue.limited", actor, before)
    await ring_waiting(session, RING_AT_RESUME, JobLog.queue == name)
    return queue


async def pause_job(session: AsyncSession, name: str, *, reason: str = "", actor: Actor) -> JobCatalogue:
    """Stops all workers from starting this job.

    Raises:
        NotFound: no worker ever offered it; Invalid: the reason is too long.
    """
    job = await _job(session, name)
    _check_reason(reason)
    before = _job_controls(job)
    job.paused_at, job.paused_by, job.pause_reason = job.paused_at or utc_now(), actor.name, reason or None
    await _changed_job(session, job, "catalogue.paused", actor, before)
    return job


async def resume_job(session: AsyncSession, name: str, *, actor: Actor) -> JobCatalogue:
    """Lets workers start this job again, and rings for what waits."""
    job = await _job(session, name)
    before = _job_controls(job)
    job.paused_at, job.paused_by, job.pause_reason = None, None, None
    await _changed_job(session, job, "catalogue.resumed", actor, before)
    await ring_waiting(session, RING_AT_RESUME, JobLog.job_name == name)
    return job


async def set_job_limit(
    session: AsyncSession,
    name: str,
    *,
    concurrency: int | Unset | None = UNSET,
    rate: float | Unset | None = UNSET,
    burst: int | Unset | None = UNSET,
    actor: Actor,
) -> JobCatalogue:
    """Limits a job over all workers; None lifts a limit, what is not given stays.

    Args:
        concurrency: how many of it run at a time.
        rate: how many of it start in a second.
        burst: how many may start at once after a quiet time; None means what a tenth of a second brings.

    Raises:
        NotFound: no worker ever offered it; Invalid: naming each value that is not allowed.
    """
    job = await _job(session, name)
    wanted = {"concurrency": concurrency, "rate_limit": rate, "rate_burst": burst}
    given = {field: value for field, value in wanted.items() if not isinstance(value, Unset)}
    _check_limits(given)
    before = _job_controls(job)
    for field, value in given.items():
        setattr(job, field, value)
    if job.rate_limit is None:
        if given.get("rate_burst") is not None:
            raise Invalid({"rate_burst": "means nothing without a rate: give one, or leave it empty"})
        job.rate_burst = job.rate_tat = None
    await _changed_job(session, job, "catalogue.limited", actor, before)
    await ring_waiting(session, RING_AT_RESUME, JobLog.job_name == name)
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
    _check_limits({"concurrency": concurrency})


def _check_limits(given: Mapping[str, float | int | None]) -> None:
    """Raises Invalid with every limit that is not allowed."""
    problems: dict[str, str] = {}
    for name, most in (("concurrency", 100_000), ("rate_burst", MOST_BURST)):
        value = given.get(name)
        if value is not None and not 1 <= value <= most:
            problems[name] = f"{value} is not allowed: it must be from 1 to {most}, or empty for none"
    if (per_s := given.get("rate_limit")) is not None and not is_rate(per_s):
        problems["rate_limit"] = (
            f"{per_s:g} a second is not allowed: it must be from 1 a day to 10000 a second, or empty for none"
        )
    if problems:
        raise Invalid(problems)


def _queue_controls(queue: Queue) -> dict[str, object]:
    return {
        "paused": queue.paused_at is not None,
        "reason": queue.pause_reason,
        "concurrency": queue.concurrency,
    }


def _job_controls(job: JobCatalogue) -> dict[str, object]:
    return {
        "paused": job.paused_at is not None,
        "reason": job.pause_reason,
        "concurrency": job.concurrency,
        "rate_limit": job.rate_limit,
        "rate_burst": job.rate_burst,
    }


async def _changed_queue(
    session: AsyncSession, queue: Queue, event: str, actor: Actor, before: Mapping[str, object]
) -> None:
    queue.rev += 1
    await session.flush()
    emit(session, event, {"queue": queue.name}, actor.name)
    changed(session, "queue", queue.name, queue.rev)
    await audit(session, actor, event, "queue", queue.name, before=before, after=_queue_controls(queue))


async def _changed_job(
    session: AsyncSession, job: JobCatalogue, event: str, actor: Actor, before: Mapping[str, object]
) -> None:
    job.rev += 1
    await session.flush()
    emit(session, event, {"job_name": job.name}, actor.name)
    changed(session, "catalogue", job.name, job.rev)
    await audit(session, actor, event, "catalogue", job.name, before=before, after=_job_controls(job))
