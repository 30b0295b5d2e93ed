"""What one job's page shows beside the job: attempts, log lines, its trace, and what people did with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.counters import CAP, words
from webapp.queries.job_logs import list_columns, load_jobs, whole_columns
from webapp.queries.schedules import name_of
from webapp.queries.views import JobView, job_view
from worker.accounts.models import AuditEntry
from worker.joblogs.dead_letters import UNRESOLVED
from worker.joblogs.effects import EffectView, effects_of
from worker.joblogs.models import JobAttempt, JobLog, JobLogLine
from worker.process.models import Worker


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One execution: those that went wrong are recorded, the last good one is read from the job itself."""

    attempt: int
    epoch: int
    outcome: str
    reason: str | None
    worker: str | None
    worker_id: UUID | None
    wait_seconds: float | None
    run_seconds: float | None
    run_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    traceback: str | None
    retry_at: datetime | None


async def attempts_of(connection: AsyncConnection, job: JobView) -> list[AttemptView]:
    """Newest first: the running or successful one stands above those that went wrong."""
    statement = (
        sa.select(JobAttempt.__table__, Worker.host.label("worker_host"), Worker.pid.label("worker_pid"))
        .outerjoin(Worker, Worker.id == JobAttempt.worker_id)
        .where(JobAttempt.job_id == job.job_id)
        .order_by(JobAttempt.epoch, JobAttempt.id)
        .limit(1000)
    )
    found = [_attempt(row) for row in await connection.execute(statement)]
    if job.status in ("running", "success") and job.started_at is not None:
        found.append(_current_attempt(job))
    return found[::-1]


def _attempt(row: sa.Row[Any]) -> AttemptView:
    return AttemptView(
        attempt=row.attempt,
        epoch=row.epoch,
        outcome=row.outcome,
        reason=row.reason,
        worker=f"{row.worker_host}:{row.worker_pid}" if row.worker_host else None,
        worker_id=row.worker_id,
        wait_seconds=_between(row.run_at, row.started_at),
        run_seconds=_between(row.started_at, row.ended_at),
        run_at=row.run_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=row.error,
        traceback=row.traceback,
        retry_at=row.retry_at,
    )


def _current_attempt(job: JobView) -> AttemptView:
    return AttemptView(
        attempt=job.attempt,
        epoch=job.epoch,
        outcome=job.shown_status,
        reason=None,
        worker=job.worker,
        worker_id=job.worker_id,
        wait_seconds=_between(job.run_at, job.started_at),
        run_seconds=job.duration_seconds,
        run_at=job.run_at,
        started_at=job.started_at,
        ended_at=job.completed_at,
        error=None,
        traceback=None,
        retry_at=None,
    )


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return max(0.0, (end - start).total_seconds()) if start and end else None


@dataclass(frozen=True, slots=True)
class LogLineView:
    epoch: int
    seq: int
    at: datetime
    level: str
    logger: str | None
    message: str

    @property
    def key(self) -> str:
        return f"{self.epoch}-{self.seq}"


async def log_lines(
    connection: AsyncConnection,
    job_id: UUID,
    *,
    after: tuple[int, int] | None = None,
    contains_text: str = "",
    limit: int = 500,
) -> list[LogLineView]:
    """The job's lines in the order they were logged, after (epoch, seq)."""
    statement = (
        sa.select(
            JobLogLine.epoch,
            JobLogLine.seq,
            JobLogLine.at,
            JobLogLine.level,
            JobLogLine.logger,
            JobLogLine.message,
        )
        .where(JobLogLine.job_id == job_id)
        .order_by(JobLogLine.epoch, JobLogLine.seq)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(
            sa.tuple_(JobLogLine.epoch, JobLogLine.seq) > sa.tuple_(*map(sa.literal, after))
        )
    if contains_text:
        statement = statement.where(JobLogLine.message.icontains(contains_text, autoescape=True))
    return [LogLineView(*row) for row in await connection.execute(statement)]


async def audit_of(connection: AsyncConnection, job_id: UUID) -> Sequence[sa.Row[Any]]:
    """What people did with this job, newest first."""
    entry = AuditEntry.__table__.c
    statement = (
        sa.select(*entry)
        .where(entry.object_id == str(job_id), entry.object_type == "job")
        .order_by(entry.id.desc())
        .limit(200)
    )
    return (await connection.execute(statement)).all()


@dataclass(frozen=True, slots=True)
class Trace:
    """What this job came from, and what came from it."""

    rerun_of: JobView | None
    caused_by: str | None
    same_story: Sequence[JobView]
    reruns: Sequence[JobView]
    schedule: tuple[UUID, str] | None = None
    """Id and name of the schedule that started it."""


async def trace_of(connection: AsyncConnection, job: JobView) -> Trace:
    reruns = await _few(connection, JobLog.rerun_of == job.job_id)
    same: Sequence[JobView] = ()
    if job.correlation_id:
        same = await _few(connection, JobLog.correlation_id == job.correlation_id, JobLog.id != job.job_id)
    source = (await load_jobs(connection, [job.rerun_of])).get(job.rerun_of) if job.rerun_of else None
    schedule = await name_of(connection, job.scheduled_job) if job.scheduled_job else None
    cause = None if schedule else job.caused_by
    return Trace(rerun_of=source, caused_by=cause, same_story=same, reruns=reruns, schedule=schedule)


async def _few(connection: AsyncConnection, *wanted: sa.ColumnElement[bool]) -> list[JobView]:
    statement = list_columns(connection.dialect.name).where(*wanted, JobLog.deleted_at.is_(None))
    rows = await connection.execute(statement.order_by(JobLog.id.desc()).limit(50))
    return [job_view(row) for row in rows]


async def last_success(connection: AsyncConnection, job: JobView) -> JobView | None:
    """The newest success of the same function before this job, to compare arguments with."""
    statement = (
        whole_columns()
        .where(JobLog.job_name == job.job_name, JobLog.status == "success", JobLog.id < job.job_id)
        .order_by(JobLog.id.desc())
        .limit(1)
    )
    row = (await connection.execute(statement)).first()
    return job_view(row) if row is not None else None


# The way a job took


@dataclass(frozen=True, slots=True)
class Step:
    """One box of the state path."""

    status: str
    at: datetime | None
    taken: bool
    current: bool


def state_path(job: JobView) -> list[Step]:
    """The boxes from accepted to ended: those behind it lit, with their times; those it may still reach not."""
    fresh = job.epoch <= job.attempt <= 1
    later = fresh and (job.run_at - job.enqueued_at).total_seconds() > 1
    names = ["scheduled"] if job.status == "scheduled" or later else []
    names += (
        ["queued", "retrying", "running"]
        if job.attempt > 1 and job.status != "retrying"
        else ["queued", "running"]
    )
    names += ["retrying"] if job.status == "retrying" else []
    ended = job.status in ("success", "failed", "cancelled")
    names += [job.status] if ended else ["cancelling"] if job.shown_status == "cancelling" else []
    taken = {*_behind(job, names), job.status, job.shown_status}
    names += [] if ended else ["success", "failed"]
    times = {
        "scheduled": job.enqueued_at,
        "queued": job.run_at if "scheduled" in names else job.enqueued_at,
        "retrying": job.run_at,
        "running": job.started_at,
        "cancelling": job.cancel_requested_at,
        job.status if ended else "": job.completed_at,
    }
    return [
        Step(name, times.get(name) if name in taken else None, name in taken, name == job.shown_status)
        for name in names
    ]


def _behind(job: JobView, names: Sequence[str]) -> Sequence[str]:
    """What lies before the box it stands in; one that ended without starting never ran."""
    here = names.index(job.shown_status) if job.shown_status in names else len(names)
    return [name for name in names[:here] if name != "running" or job.started_at is not None]


# Its errors


@dataclass(frozen=True, slots=True)
class SameError:
    """The unresolved failures with this job's fingerprint."""

    count: str
    href: str
    first_seen: datetime
    last_seen: datetime


async def same_error(connection: AsyncConnection, job: JobView) -> SameError | None:
    if not job.error_fingerprint:
        return None
    mine = (*UNRESOLVED, JobLog.error_fingerprint == job.error_fingerprint)
    some = (
        sa.select(JobLog.completed_at)
        .where(*mine)
        .order_by(JobLog.completed_at.desc())
        .limit(CAP + 1)
        .subquery()
    )
    statement = sa.select(sa.func.count(), sa.func.min(some.c.completed_at), sa.func.max(some.c.completed_at))
    n, first, last = (await connection.execute(statement)).one()
    if not n:
        return None
    return SameError(words(n), f"/job-logs?status=failed&f=group:{job.error_fingerprint}", first, last)


async def doubts_of(connection: AsyncConnection, job: JobView) -> list[EffectView]:
    """Effects of which nobody knows whether they happened; none while it runs, when it may still say so itself."""
    if job.status == "running":
        return []
    return [effect for effect in await effects_of(connection, job.job_id) if effect.in_doubt]


def app_trace(traceback: str | None) -> str | None:
    """The frames of the job's own code and what was raised; None when that is all of it, or nothing."""
    if not traceback:
        return None
    lines = traceback.rstrip().split("\n")
    kept: list[str] = []
    mine, frames = True, 0
    for line in lines:
        if line.startswith('  File "'):
            mine = not any(part in line.replace("\\", "/") for part in LIBRARIES)
            frames += mine
        elif not line.startswith(" "):
            mine = True
        if mine:
            kept.append(line)
    return "\n".join(kept) if frames and len(kept) < len(lines) else None


LIBRARIES = (
    "/site-packages/",
    "/dist-packages/",
    "/lib/python",
    "/worker/joblogs/",
    "/worker/jobs/",
    "<frozen ",
)


# Its log lines, from the end


async def last_lines(
    connection: AsyncConnection,
    job_id: UUID,
    *,
    before: tuple[int, int] | None = None,
    text: str = "",
    limit: int = 500,
) -> tuple[list[LogLineView], bool]:
    """The newest lines (before a place), in the order they were logged, and whether there are earlier ones."""
    line = JobLogLine
    statement = sa.select(line.epoch, line.seq, line.at, line.level, line.logger, line.message)
    statement = statement.where(line.job_id == job_id)
    if before is not None:
        statement = statement.where(sa.tuple_(line.epoch, line.seq) < sa.tuple_(*map(sa.literal, before)))
    if text:
        statement = statement.where(line.message.icontains(text, autoescape=True))
    statement = statement.order_by(line.epoch.desc(), line.seq.desc()).limit(limit + 1)
    found = [LogLineView(*row) for row in await connection.execute(statement)]
    return found[:limit][::-1], len(found) > limit


# What is different from the last time it went well


def changed_args(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, before, after) of each value that differs; an argument that was not given counts as null."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*after, *(name for name in before if name not in after)]
        found = []
        for name in names:
            found += changed_args(before.get(name), after.get(name), f"{path}.{name}" if path else str(name))
        return found[:100]
    return [] if before == after else [(path, before, after)]
