"""Every live fragment by its name: its template, what it is loaded by, and which changes make it stale."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.lines import LogLines
from webapp.live.lists import NewJobs
from webapp.live.sources import Context, Fragment, FragmentSource, Ids, Load, Render, Source
from webapp.queries.counters import counters
from webapp.queries.job_logs import load_jobs, load_whole_jobs
from worker.engine import Engine
from worker.joblogs.models import JobLog

EVERY_SECOND: Final = 1.0


def sources(render: Render, engine: Engine) -> list[Source]:
    """All that pages can watch."""
    found: list[Source] = [FragmentSource(fragment, render) for fragment in fragments(engine)]
    return [*found, LogLines(render), NewJobs()]


def fragments(engine: Engine) -> list[Fragment]:
    late_after_s = engine.settings.alert_backlog_age_s
    return [
        Fragment("job-row", "job_logs/_row.html", job_rows, revs=job_revs),
        Fragment(
            "counters", "shell/_counters.html", _counters(late_after_s), whole=True, every_s=EVERY_SECOND
        ),
    ]


async def job_revs(connection: AsyncConnection, ids: Ids) -> Mapping[str, str]:
    """One SELECT for all the fragments that show a job."""
    found: dict[str, str] = {}
    wanted = uuids(ids)
    for start in range(0, len(wanted), 500):
        statement = sa.select(JobLog.id, JobLog.rev).where(JobLog.id.in_(wanted[start : start + 500]))
        found |= {str(row.id): str(row.rev) for row in await connection.execute(statement)}
    return found


async def job_rows(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    jobs = await load_jobs(connection, uuids(ids))
    return {str(of): {"job": job, "rev": job.rev} for of, job in jobs.items()}


def _counters(late_after_s: float) -> Load:
    async def load(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
        found = await counters(connection, late_after_s)
        rev = digest((found.failed, found.running, found.late))
        return {"all": {"counters": {**asdict(found), "rev": rev}, "rev": rev}}

    return load


async def whole_jobs(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    jobs = await load_whole_jobs(connection, uuids(ids))
    return {str(of): {"job": job, "rev": job.rev} for of, job in jobs.items()}


def uuids(ids: Ids) -> list[UUID]:
    """Those that are UUIDs: a page may name anything."""
    found = []
    for of in ids:
        try:
            found.append(UUID(of))
        except ValueError:
            continue
    return found


def digest(value: Any) -> str:
    """A revision for what has none of its own: differs when what is shown differs."""
    return "h" + hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
