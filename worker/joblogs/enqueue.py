"""Accepting a job: the request is checked, the row inserted, the doorbell remembered for after the commit."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import new_id
from worker.db.session import Doorbell, changed, emit, now_of, ring
from worker.errors import Invalid, KeyBusy, QueueFull, UnknownJob
from worker.joblogs.counters import count, waiting
from worker.joblogs.models import LIVE, JobLog
from worker.jobs import secret
from worker.settings import WORD, Settings

KEY_WAIT_MS = 1000


class Offer(Protocol):
    """What must be known of a job to accept a request for it; `worker.jobs.catalogue.JobOffer` is one."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def max_retries(self) -> int | None: ...
    @property
    def timeout_s(self) -> float | None: ...
    @property
    def fields(self) -> Any: ...

    def validate(self, args: dict[str, Any]) -> dict[str, Any]: ...


class Offers(Protocol):
    """Where offers are looked up; `worker.jobs.catalogue.Catalogue` is one."""

    async def get(self, session: AsyncSession | None, name: str) -> Offer | None: ...


@dataclass(slots=True)
class Reception:
    """What accepting jobs depends on; every session carries it in `info["reception"]`."""

    offers: Offers
    settings: Settings
    depths: dict[str, tuple[float, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A wish to run a job, as it came in."""

    job_name: str
    args: dict[str, Any]
    queue: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    unique_key: str | None = None
    max_retries: int | None = None
    timeout_s: float | None = None
    user: str | None = None
    tags: Sequence[str] = ()
    correlation_id: str | None = None
    caused_by: str | None = None
    rerun_of: UUID | None = None
    scheduled_job_id: UUID | None = None
    note: str | None = None
    job_id: UUID | None = None
    """The id the new job gets; a caller that has told it to somebody already gives it."""
    always: bool = False
    """Accepted above the depth limit too: nobody is there who could try again later."""


async def accept(session: AsyncSession, requests: Sequence[Request]) -> list[JobLog | Exception]:
    """Inserts what can be accepted in the caller's transaction; answers one job or one error per request.

    A request whose unique key is held by a live job gets that job, with `duplicate` set on it.
    """
    reception: Reception = session.sync_session.info["reception"]
    now = await now_of(session)
    answers: list[JobLog | Exception | None] = [None] * len(requests)
    rows: dict[int, dict[str, Any]] = {}
    for index, request in enumerate(requests):
        try:
            rows[index] = await _row(session, reception, request, now)
        except (Invalid, UnknownJob, QueueFull) as error:
            answers[index] = error
    plain = {index: row for index, row in rows.items() if row["unique_key"] is None}
    if plain:
        await session.execute(sa.insert(JobLog), list(plain.values()))
    keyed = sorted((i for i in rows if i not in plain), key=lambda i: str(rows[i]["unique_key"]))
    for index in keyed:  # in the order of the keys, so that two bulks never wait for each other
        answers[index] = await _insert_keyed(session, rows[index])
    for index, row in plain.items():
        answers[index] = _job(row)
    _tell(
        session,
        [a for i, a in enumerate(answers) if i in rows and isinstance(a, JobLog) and not duplicate(a)],
    )
    return [answer for answer in answers if answer is not None]


def duplicate(job: JobLog) -> bool:
    """Whether this answer of `enqueue` is the live holder of the unique key and not a new job."""
    return bool(job.__dict__.get("duplicate", False))


async def _row(
    session: AsyncSession, reception: Reception, request: Request, now: datetime
) -> dict[str, Any]:
    offer = await reception.offers.get(session, request.job_name)
    if offer is None:
        raise UnknownJob(request.job_name)
    settings = reception.settings
    problems = problems_of(request)
    try:
        args = offer.validate(request.args)
    except Invalid as error:
        problems |= error.problems
    if problems:
        raise Invalid(problems)
    queue = request.queue or offer.queue
    if not request.always:
        await _refuse_if_full(session, reception, queue)
    run_at = request.run_at or now
    retries, timeout_s = offer.max_retries, offer.timeout_s
    return {
        "id": request.job_id or new_id(),
        "job_name": offer.name,
        "queue": queue,
        "priority": 5 if request.priority is None else request.priority,
        "status": "scheduled" if run_at > now else "queued",
        "args": secret.seal(offer.fields, args, settings.secret_key),
        "enqueued_at": now,
        "run_at": run_at,
        "max_retries": _first(request.max_retries, retries, settings.job_max_retries),
        "timeout_s": _first(request.timeout_s, timeout_s, settings.job_timeout_s),
        "unique_key": request.unique_key,
        "user_id": request.user,
        "tags": list(request.tags),
        "correlation_id": request.correlation_id,
        "caused_by": request.caused_by,
        "rerun_of": request.rerun_of,
        "scheduled_job_id": request.scheduled_job_id,
        "note": request.note,
        "attempt": 0,
        "epoch": 0,
        "rev": 1,
        "lost_count": 0,
        "died_alone": 0,
        "lane": "normal",
    }


def problems_of(request: Request) -> dict[str, str]:
    """What is wrong with everything but the arguments, by field."""
    problems: dict[str, str] = {}
    if request.queue is not None and not WORD.match(request.queue):
        problems["queue"] = (
            f"{request.queue[:80]!r} is not a queue name: a-z, 0-9, _ and -, beginning with a letter or digit, at most 63"
        )
    if request.priority is not None and not 0 <= request.priority <= 9:
        problems["priority"] = f"{request.priority} is not allowed: it must be from 0 (first) to 9 (last)"
    if request.run_at is not None and request.run_at.tzinfo is None:
        problems["run_at"] = f"{request.run_at.isoformat()} has no time zone: write 2026-11-22T09:00:00Z"
    if request.max_retries is not None and not 0 <= request.max_retries <= 1000:
        problems["max_retries"] = f"{request.max_retries} is not allowed: it must be from 0 to 1000"
    if request.timeout_s is not None and not (
        math.isfinite(request.timeout_s) and 0 < request.timeout_s <= 31_536_000
    ):
        problems["timeout_s"] = (
            f"{request.timeout_s} is not allowed: it must be more than 0 and at most 31536000"
        )
    if request.unique_key is not None and not 0 < len(request.unique_key) <= 200:
        problems["unique_key"] = "it must have from 1 to 200 characters"
    for name, text in (
        ("unique_key", request.unique_key),
        ("note", request.note),
        *(("tags", t) for t in request.tags),
    ):
        if text is not None and ("\0" in text or any("\ud800" <= c <= "\udfff" for c in text)):
            problems[name] = "it holds a NUL or half a surrogate pair, which cannot be stored"
    if len(request.tags) > 20 or any(not 0 < len(tag) <= 60 for tag in request.tags):
        problems["tags"] = "at most 20 tags of 1 to 60 characters are allowed"
    return problems


async def _refuse_if_full(session: AsyncSession, reception: Reception, queue: str) -> None:
    """Raises QueueFull at the depth limit; the depth may be up to a second old."""
    limit = reception.settings.queue_max_depth
    at, depth = reception.depths.get(queue, (-math.inf, 0))
    if time.monotonic() - at > 1:
        depth = await waiting(session, queue)
        reception.depths[queue] = (time.monotonic(), depth)
    if depth >= limit:
        raise QueueFull(queue=queue, depth=depth, limit=limit)
    reception.depths[queue] = (reception.depths[queue][0], depth + 1)


async def _insert_keyed(session: AsyncSession, row: dict[str, Any]) -> JobLog | Exception:
    """Inserts unless a live job holds the key; on PostgreSQL it waits at most a second for another's transaction."""
    for _ in range(3):
        try:
            if await _try_insert(session, row):
                return _job(row)
        except DBAPIError as error:
            if "lock timeout" in str(error.orig) or "lock_timeout" in str(error.orig):
                return KeyBusy(unique_key=row["unique_key"])
            raise
        holder = await session.scalar(
            sa.select(JobLog).where(JobLog.unique_key == row["unique_key"], JobLog.status.in_(LIVE))
        )
        if holder is not None:
            holder.__dict__["duplicate"] = True
            return holder
    return KeyBusy(unique_key=row["unique_key"])  # the holder ended between our statements, three times


async def _try_insert(session: AsyncSession, row: dict[str, Any]) -> bool:
    if session.get_bind().dialect.name == "sqlite":
        lite = sqlite.insert(JobLog).values(row).on_conflict_do_nothing().returning(JobLog.id)
        return await session.scalar(lite) is not None
    async with session.begin_nested():
        await session.execute(sa.text(f"SET LOCAL lock_timeout = {KEY_WAIT_MS}"))
        full = postgresql.insert(JobLog).values(row).on_conflict_do_nothing().returning(JobLog.id)
        inserted = await session.scalar(full) is not None
        await session.execute(sa.text("SET LOCAL lock_timeout = 0"))
    return inserted


def _tell(session: AsyncSession, jobs: Iterable[JobLog]) -> None:
    """Counts, events, revisions and rings of freshly inserted jobs."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for job in jobs:
        counts[(job.job_name, job.queue, job.status)] += 1
        emit(session, f"job.{job.status}", event_data(job), job.user_id)
        changed(session, "job", job.id, job.rev)
        if job.status == "queued":
            ring(session, [Doorbell(job.id, job.queue, job.priority)])
    count(session, counts)


def event_data(job: Any) -> dict[str, Any]:
    """What an event tells of a job: never its arguments, its result or its error text."""
    return {
        "job_id": str(job.id),
        "job_name": job.job_name,
        "queue": job.queue,
        "status": job.status,
        "attempt": job.attempt,
        "reason": job.reason,
        "rev": job.rev,
    }


def _job(row: dict[str, Any]) -> JobLog:
    """The inserted row as an object that belongs to no session: reading it never touches the database."""
    return JobLog(
        **row,
        **dict.fromkeys(
            ("reason", "result", "error", "traceback", "error_fingerprint", "started_at", "completed_at", "worker_id",
             "progress", "progress_note", "checkpoint", "cancel_requested_at", "resolved_at", "deleted_at")
        ),
    )  # fmt: skip


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
