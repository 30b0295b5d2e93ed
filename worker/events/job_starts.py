"""`@job(on="doc.*")`: a job is enqueued once for each event that it waits for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.base import utc_now
from worker.db.session import Database
from worker.events.takers import Event, Recorded, means
from worker.joblogs.enqueue import Request, accept
from worker.joblogs.models import JobLog
from worker.jobs.job import Job
from worker.jobs.models import JobCatalogue
from worker.jobs.registry import Registry
from worker.process.models import Worker
from worker.process.presence import has_settled

log = structlog.get_logger(__name__)

LONGEST_CHAIN = 4
"""Event, job, event, job, … ends here: two jobs that wait for each other's events would never end."""
_CAUSE = re.compile(r"event:[^#]*(?:#(\d+))?\Z")


@dataclass(frozen=True, slots=True)
class Start:
    """A job that waits for events."""

    job_name: str
    patterns: tuple[str, ...]
    takes_event: bool


class JobStarts:
    """Taker of the events that jobs wait for: those that workers advertise, or those of a registry."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._starts: list[Start] = []

    async def patterns(self, connection: AsyncConnection | AsyncSession) -> Sequence[str]:
        own = self._registry
        self._starts = await waiting_jobs(connection) if own is None else [start_of(job) for job in own]
        return [pattern for start in self._starts for pattern in start.patterns]

    async def prepare(self, database: Database, events: Sequence[Recorded]) -> None:
        """Nothing: accepting a job takes no time worth it."""

    async def take(self, session: AsyncSession, events: Sequence[Event]) -> None:
        depths = await chain_depths(session, events)
        requests = [
            request_for(start, event, depths.get(cause_of(event), 0))
            for event in events
            for start in self._starts
            if means(start.patterns, event) and may_start(start, event, depths.get(cause_of(event), 0))
        ]
        for request, answer in zip(requests, await accept(session, requests), strict=True):
            if isinstance(answer, Exception):
                log.warning(
                    "An event started no job",
                    job_name=request.job_name,
                    cause=request.caused_by,
                    error=str(answer),
                )


def may_start(start: Start, event: Event, depth: int) -> bool:
    """A job is not started by events about its own runs, nor at the end of a long chain."""
    data = event.get("data")
    about = data.get("job_name") if isinstance(data, dict) else None
    if depth >= LONGEST_CHAIN:
        log.warning(
            "A chain of events and jobs was cut", job_name=start.job_name, event_id=event.get("event_id")
        )
        return False
    return not (about == start.job_name and str(event.get("event_type")).startswith("job."))


def request_for(start: Start, event: Event, depth: int) -> Request:
    event_id = str(event.get("event_id"))
    return Request(
        start.job_name,
        {"event": event} if start.takes_event else {},
        user=event.get("user_id"),
        caused_by=f"event:{event_id}" + (f"#{depth + 1}" if depth else ""),
        correlation_id=str(event.get("correlation_id") or event_id)[:200],
        always=True,
    )


def cause_of(event: Event) -> str:
    """The id of the job that an event is about or came from; empty without one."""
    data = event.get("data")
    about = data.get("job_id") if isinstance(data, dict) else None
    return str(about or str(event.get("caused_by") or "").removeprefix("job:"))


async def chain_depths(session: AsyncSession, events: Iterable[Event]) -> dict[str, int]:
    """How many events in a row led to each job that these events come from."""
    ids = {found for event in events if (found := _uuid(cause_of(event))) is not None}
    if not ids:
        return {}
    rows = await session.execute(
        sa.select(JobLog.id, JobLog.caused_by).where(JobLog.id.in_(ids), JobLog.caused_by.like("event:%"))
    )
    depths = {str(row.id): _CAUSE.match(row.caused_by) for row in rows}
    return {job_id: int(match[1] or 1) for job_id, match in depths.items() if match}


def start_of(job: Job) -> Start:
    return Start(job.name, job.on_events, any(field.name == "event" for field in job.fields))


async def waiting_jobs(connection: AsyncConnection | AsyncSession) -> list[Start]:
    """Every advertised job with `on`, but those that the code does not have any more."""
    columns = (JobCatalogue.name, JobCatalogue.module, JobCatalogue.on_events, JobCatalogue.parameters)
    waits = sa.cast(JobCatalogue.on_events, sa.Text) != "[]"
    rows = (await connection.execute(sa.select(*columns).where(waits))).all()
    if not rows:
        return []
    workers = (
        await connection.execute(
            sa.select(Worker.jobs, Worker.modules, Worker.started_at).where(
                Worker.ended_at.is_(None), Worker.kind != "clerk"
            )
        )
    ).all()
    return [
        Start(
            row.name,
            tuple(row.on_events),
            any(field.get("name") == "event" for field in row.parameters or ()),
        )
        for row in rows
        if not is_retired(row.name, row.module, workers, utc_now())
    ]


def is_retired(name: str, module: str, workers: Sequence[Any], now: datetime) -> bool:
    """Nobody offers it, although a worker that loads its module has been there for ten minutes."""
    if any(name in worker.jobs for worker in workers):
        return False
    return any(module in worker.modules and has_settled(worker.started_at, now) for worker in workers)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
