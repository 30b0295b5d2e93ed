"""What people and programs do with jobs: the buttons on screen are these functions, same names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.session import Doorbell, changed, emit, now_of, ring, signal
from worker.errors import Invalid, KeyHeld, NotAllowedNow, NotFound, TooLate, UnknownJob
from worker.joblogs import edits, states
from worker.joblogs.counters import Key, count, moved
from worker.joblogs.edits import UNSET, Unset
from worker.joblogs.enqueue import Reception, Request, accept, duplicate, event_data
from worker.joblogs.models import LIVE, JobAttempt, JobLog
from worker.jobs import secret

__all__ = [
    "UNSET",
    "cancel",
    "delete",
    "duplicate",
    "edit",
    "enqueue",
    "enqueue_many",
    "rerun",
    "restore",
    "retry",
]


async def enqueue(
    session: AsyncSession,
    job_name: str,
    args: dict[str, Any] | None = None,
    *,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    unique_key: str | None = None,
    max_retries: int | None = None,
    timeout_s: float | None = None,
    user: str | None = None,
    tags: Sequence[str] = (),
    correlation_id: str | None = None,
    caused_by: str | None = None,
    rerun_of: UUID | None = None,
    scheduled_job_id: UUID | None = None,
    note: str | None = None,
    actor: Actor | None = None,
) -> JobLog:
    """Accepts one job in the caller's transaction; it is rung after the commit.

    A `unique_key` held by a live job returns that job: `duplicate(job)` tells.

    Raises:
        UnknownJob: no worker offers `job_name`.
        Invalid: arguments or options that do not fit, each named.
        QueueFull: the queue's depth limit is reached.
        KeyBusy: another transaction holds the unique key for more than a second.
    """
    request = Request(
        job_name, args or {}, queue, priority, run_at, unique_key, max_retries, timeout_s,
        user or (actor.name if actor else None), tags, correlation_id, caused_by, rerun_of, scheduled_job_id, note,
    )  # fmt: skip
    [answer] = await accept(session, [request])
    if isinstance(answer, Exception):
        raise answer
    if actor is not None and not duplicate(answer):
        await audit(
            session, actor, "job.run", "job", answer.id, after={"job_name": job_name, "queue": answer.queue}
        )
    return answer


async def enqueue_many(
    session: AsyncSession, job_name: str, args_list: Iterable[dict[str, Any]], **options: Any
) -> list[JobLog]:
    """Accepts many requests of one job in bulk: all of them, or none.

    Raises:
        Invalid: naming the first wrong request as `args[<index>].<field>`; and what `enqueue` raises.
    """
    answers = await accept(session, [Request(job_name, args, **options) for args in args_list])
    for index, answer in enumerate(answers):
        if isinstance(answer, Invalid):
            raise Invalid({f"args[{index}].{field}": text for field, text in answer.problems.items()})
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in answers if isinstance(answer, JobLog)]


async def cancel(session: AsyncSession, job_id: UUID, *, actor: Actor) -> Literal["done", "requested"]:
    """Cancels a job that has not started at once; asks a running one to stop.

    Raises:
        NotFound: there is no such job.
        TooLate: it has ended.
    """
    job = await locked(session, job_id)
    before = job.status
    answer = await cancel_locked(session, job, actor)
    await audit(
        session, actor, "job.cancel", "job", job.id, before={"status": before}, after={"status": job.status}
    )
    return answer


async def cancel_locked(session: AsyncSession, job: JobLog, actor: Actor) -> Literal["done", "requested"]:
    """`cancel` on a row that is locked, without an audit entry of its own."""
    if not states.can_cancel(job.status):
        raise TooLate(job_id=job.id, status=job.status)
    now = await now_of(session)
    if job.status == "running":
        await _ask_to_stop(session, job, now)
        return "requested"
    before = job.status
    session.add(_attempt(job, "cancelled", now))
    job.status, job.completed_at, job.reason = "cancelled", now, "cancelled"
    await _moved(session, job, before, actor)
    return "done"


async def retry(session: AsyncSession, job_id: UUID, *, actor: Actor, epoch: int | None = None) -> JobLog:
    """Queues a failed or cancelled job again, with a new epoch and all its retries; its history stays.

    `epoch` is the one the caller saw: a second click finds the job already live and changes nothing.

    Raises:
        NotFound, NotAllowedNow: it is not failed or cancelled.
        KeyHeld: its unique key is held by another live job.
    """
    job = await locked(session, job_id)
    if epoch is not None and job.epoch > epoch and job.status in LIVE:
        return job
    before = job.status
    await retry_locked(session, job, actor)
    await audit(
        session, actor, "job.retry", "job", job.id, before={"status": before}, after={"status": "queued"}
    )
    return job


async def retry_locked(session: AsyncSession, job: JobLog, actor: Actor) -> None:
    """`retry` on a row that is locked, without an audit entry of its own."""
    if not states.can_retry(job.status):
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="retried")
    await _refuse_held_key(session, job)
    before = job.status
    for name in (
        "reason", "result", "error", "traceback", "error_fingerprint", "started_at", "completed_at", "worker_id",
        "progress", "progress_note", "cancel_requested_at", "resolved_at",
    ):  # fmt: skip
        setattr(job, name, None)
    job.status, job.lane, job.run_at = "queued", "normal", await now_of(session)
    job.epoch, job.attempt, job.lost_count, job.died_alone = job.epoch + 1, 0, 0, 0
    try:
        await _moved(session, job, before, actor)
    except IntegrityError as error:
        raise KeyHeld(unique_key=job.unique_key, holder="another one") from error


async def rerun(
    session: AsyncSession, job_id: UUID, *, actor: Actor, args: dict[str, Any] | None = None, **options: Any
) -> JobLog:
    """Runs the same job again as a new one that names this as its origin, as it was or with other arguments.

    Secrets that `args` leaves masked keep their stored values.

    Raises:
        NotFound, and what `enqueue` raises.
    """
    job = await one(session, job_id)
    reception: Reception = session.sync_session.info["reception"]
    offer = await reception.offers.get(session, job.job_name)
    if offer is None:
        raise UnknownJob(job.job_name)
    wanted = job.args if args is None else secret.keep(offer.fields, args, job.args)
    same: dict[str, Any] = {
        "queue": job.queue,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "timeout_s": job.timeout_s,
        "tags": tuple(job.tags),
    }
    return await enqueue(session, job.job_name, wanted, rerun_of=job.id, actor=actor, **(same | options))


async def edit(
    session: AsyncSession,
    job_id: UUID,
    *,
    actor: Actor,
    args: dict[str, Any] | Unset = UNSET,
    priority: int | Unset = UNSET,
    run_at: datetime | Unset = UNSET,
    note: str | Unset | None = UNSET,
    tags: Sequence[str] | Unset = UNSET,
    resolved: bool | Unset = UNSET,
) -> JobLog:
    """Changes a job: arguments, priority and run_at while it has not started; note, tags and resolved always.

    Raises:
        NotFound; Invalid: naming each wrong field; NotAllowedNow: it has started.
    """
    job = await locked(session, job_id)
    changes: dict[str, Any] = {}
    if not (isinstance(args, Unset) and isinstance(priority, Unset) and isinstance(run_at, Unset)):
        changes |= await edits.before_start(session, job, args, priority, run_at)
    changes |= edits.at_any_time(job, note, tags, resolved)
    visible = secret.mask(changes["args"]) if "args" in changes else None
    before = {name: _plain(getattr(job, name)) for name in changes if name != "args"}
    was = job.status
    for name, value in changes.items():
        setattr(job, name, value)
    await _moved(session, job, was, actor)
    after = {name: _plain(getattr(job, name)) for name in before} | (
        {"args": visible} if visible is not None else {}
    )
    await audit(session, actor, "job.edit", "job", job.id, before=before, after=after)
    return job


async def delete(session: AsyncSession, job_id: UUID, *, actor: Actor) -> JobLog:
    """Takes an ended job out of all lists; it can be restored until maintenance purges it.

    Raises:
        NotFound; NotAllowedNow: it has not ended.
    """
    job = await locked(session, job_id)
    await delete_locked(session, job, actor)
    await audit(session, actor, "job.delete", "job", job.id, before={"status": job.status})
    return job


async def delete_locked(session: AsyncSession, job: JobLog, actor: Actor) -> None:
    """`delete` on a row that is locked, without an audit entry of its own."""
    if not states.can_delete(job.status):
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="deleted")
    job.deleted_at, job.rev = await now_of(session), job.rev + 1
    await session.flush()
    count(session, {(job.job_name, job.queue, job.status): -1})
    emit(session, "job.deleted", event_data(job), actor.name)
    changed(session, "job", job.id, job.rev)


async def resolve_locked(session: AsyncSession, job: JobLog, actor: Actor) -> None:
    """Marks a failure as dealt with, on a row that is locked, without an audit entry of its own."""
    if job.status != "failed" or job.resolved_at is not None:
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="resolved")
    job.resolved_at = await now_of(session)
    await _moved(session, job, job.status, actor)


async def restore(session: AsyncSession, job_id: UUID, *, actor: Actor) -> JobLog:
    """Brings a deleted job back.

    Raises:
        NotFound: it was never there, is purged, or is not deleted.
    """
    job = await session.get(JobLog, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.deleted_at is None:
        raise NotFound(noun="deleted job", key=str(job_id))
    job.deleted_at, job.rev = None, job.rev + 1
    await session.flush()
    count(session, {(job.job_name, job.queue, job.status): 1})
    emit(session, "job.restored", event_data(job), actor.name)
    changed(session, "job", job.id, job.rev)
    await audit(session, actor, "job.restore", "job", job.id)
    return job


async def one(session: AsyncSession, job_id: UUID) -> JobLog:
    """The job, or NotFound."""
    job = await session.get(JobLog, job_id, populate_existing=True)
    if job is None or job.deleted_at is not None:
        raise NotFound(noun="job", key=str(job_id))
    return job


async def locked(session: AsyncSession, job_id: UUID) -> JobLog:
    """The job with its row locked until the transaction ends, or NotFound."""
    job = await session.get(JobLog, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.deleted_at is not None:
        raise NotFound(noun="job", key=str(job_id))
    return job


async def _ask_to_stop(session: AsyncSession, job: JobLog, now: datetime) -> None:
    if job.cancel_requested_at is None:
        job.cancel_requested_at, job.rev = now, job.rev + 1
        await session.flush()
        changed(session, "job", job.id, job.rev)
    if job.worker_id is not None:
        signal(session, job.worker_id, {"cancel": str(job.id), "epoch": job.epoch})


async def _moved(session: AsyncSession, job: JobLog, before: str, actor: Actor) -> None:
    """Writes the row with its next revision; a change of status is counted, told and, if queued, rung."""
    job.rev += 1
    await session.flush()
    if job.status != before:
        counts: Counter[Key] = Counter()
        moved(counts, job, before, job.status)
        count(session, counts)
        emit(session, f"job.{job.status}", event_data(job), actor.name)
    if job.status == "queued":
        ring(session, [Doorbell(job.id, job.queue, job.priority)])
    changed(session, "job", job.id, job.rev)


async def _refuse_held_key(session: AsyncSession, job: JobLog) -> None:
    if job.unique_key is None:
        return
    holder = await session.scalar(
        sa.select(JobLog.id).where(
            JobLog.unique_key == job.unique_key, JobLog.status.in_(LIVE), JobLog.id != job.id
        )
    )
    if holder is not None:
        raise KeyHeld(unique_key=job.unique_key, holder=holder)


def _attempt(job: JobLog, outcome: str, now: datetime) -> JobAttempt:
    return JobAttempt(
        job_id=job.id, epoch=job.epoch, attempt=job.attempt, outcome=outcome, reason=None, worker_id=job.worker_id,
        run_at=job.run_at, started_at=None, ended_at=now, error=None, traceback=None, retry_at=None,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
