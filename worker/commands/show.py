"""Reads jobs for the terminal, under the names that the API gives their fields."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.db.session import Database
from worker.errors import NotFound
from worker.joblogs.models import JobLog
from worker.jobs.secret import mask
from worker.process.models import Worker

COLUMNS = tuple(
    column
    for column in JobLog.__table__.columns
    if column.key
    not in ("traceback", "checkpoint", "lane", "error_fingerprint", "correlation_id", "caused_by")
)
FACTS = (
    "job_id", "job_name", "queue", "priority", "status", "reason", "args", "result", "error", "enqueued_at", "run_at",
    "started_at", "completed_at", "duration_seconds", "attempt", "max_retries", "progress", "progress_note", "worker",
    "user", "scheduled_job", "rerun_of", "tags", "note",
)  # fmt: skip
"""The fields of a job in the order they are printed."""


def job_id(text: str) -> UUID:
    """The id that a person typed.

    Raises:
        NotFound: it cannot be the id of any job.
    """
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(noun="job", key=text) from None


async def one_job(database: Database, wanted: UUID) -> dict[str, Any]:
    """Everything about one job. Raises NotFound."""
    async with database.read() as connection:
        found = await _select(connection, sa.select(*COLUMNS).where(JobLog.id == wanted))
    if not found:
        raise NotFound(noun="job", key=str(wanted))
    return found[0]


async def newest_jobs(
    database: Database, *, status: str | None, job_name: str | None, queue: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest job logs that fit."""
    query = sa.select(*COLUMNS).where(JobLog.deleted_at.is_(None)).order_by(JobLog.id.desc()).limit(limit)
    for column, value in ((JobLog.status, status), (JobLog.job_name, job_name), (JobLog.queue, queue)):
        if value is not None:
            query = query.where(column == value)
    async with database.read() as connection:
        return await _select(connection, query)


async def _select(connection: AsyncConnection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    rows = (await connection.execute(query)).mappings().all()
    workers = {row["worker_id"] for row in rows} - {None}
    hosts: dict[UUID, str] = {}
    if workers:
        found = await connection.execute(
            sa.select(Worker.id, Worker.host, Worker.pid).where(Worker.id.in_(workers))
        )
        hosts = {worker.id: f"{worker.host}:{worker.pid}" for worker in found}
    return [_facts(row, hosts) for row in rows]


def _facts(row: sa.RowMapping, hosts: dict[UUID, str]) -> dict[str, Any]:
    started, completed = row["started_at"], row["completed_at"]
    known = dict(row) | {
        "job_id": str(row["id"]),
        "args": mask(row["args"]),
        "result": mask(row["result"]),
        "duration_seconds": (completed - started).total_seconds() if started and completed else None,
        "worker": hosts.get(row["worker_id"]),
        "user": row["user_id"],
        "scheduled_job": row["scheduled_job_id"],
    }
    return {name: known[name] for name in FACTS}
