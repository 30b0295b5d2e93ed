"""Dead letters: failed jobs that nobody has resolved, in groups of one cause. Read here; bulk actions change them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.joblogs.models import JobLog

UNRESOLVED = (
    JobLog.status == sa.literal_column("'failed'"),
    JobLog.resolved_at.is_(None),
    JobLog.deleted_at.is_(None),
)
"""Failed, and nobody has said that it is dealt with. A partial index is used only where its constants stand in the
statement: a bound parameter would hide them."""
FINGERPRINT = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Unresolved failures of one kind: same job, same sort of error. What is said of one job is said of the newest."""

    fingerprint: str
    job_name: str
    error: str
    count: int
    first_at: datetime
    last_at: datetime
    last_job_id: UUID
    queue: str
    resolved_at: datetime | None
    """When failures of this kind were resolved last: it has come back since."""

    @property
    def query(self) -> str:
        """The group in the search language, as bulk actions take it."""
        return query_of(self.fingerprint)


def query_of(fingerprint: str) -> str:
    return f"status:failed is:unresolved group:{fingerprint}"


async def failure_groups(
    connection: AsyncConnection, limit: int = 20, before: datetime | None = None
) -> list[FailureGroup]:
    """Those that happened last come first; with `before`, those whose last time is earlier."""
    last_at = sa.func.max(JobLog.completed_at)
    statement = _groups().order_by(last_at.desc()).limit(limit)
    if before is not None:
        statement = statement.having(last_at < before)
    return await _with_examples(connection, (await connection.execute(statement)).all())


async def one_group(connection: AsyncConnection, fingerprint: str) -> FailureGroup | None:
    """The group, or None: it never was, or all of it is retried, resolved or deleted."""
    if not FINGERPRINT.match(fingerprint):
        return None
    rows = (await connection.execute(_groups().where(JobLog.error_fingerprint == fingerprint))).all()
    found = await _with_examples(connection, rows)
    return found[0] if found else None


def _groups() -> sa.Select[Any]:
    return (
        sa.select(
            JobLog.error_fingerprint.label("fingerprint"),
            sa.func.count().label("n"),
            sa.func.min(JobLog.completed_at).label("first_at"),
            sa.func.max(JobLog.completed_at).label("last_at"),
        )
        .where(*UNRESOLVED, JobLog.error_fingerprint.is_not(None))
        .group_by(JobLog.error_fingerprint)
    )


async def _with_examples(connection: AsyncConnection, groups: Sequence[sa.Row[Any]]) -> list[FailureGroup]:
    """The groups with what their newest job says, and when they were resolved before."""
    fingerprints = [group.fingerprint for group in groups]
    examples = await _examples(connection, fingerprints)
    resolved = await _resolved(connection, fingerprints)
    return [
        FailureGroup(
            group.fingerprint,
            job.job_name,
            _first_line(job.error),
            group.n,
            group.first_at,
            group.last_at,
            job.id,
            job.queue,
            resolved.get(group.fingerprint),
        )
        for group in groups
        if (job := examples.get(group.fingerprint)) is not None
    ]


async def _examples(connection: AsyncConnection, fingerprints: Sequence[str]) -> dict[str, sa.Row[Any]]:
    """The newest job of each group."""
    if not fingerprints:
        return {}
    error = sa.func.substr(JobLog.error, 1, 400).label("error")
    each = [
        sa.select(
            sa.select(JobLog.id, JobLog.job_name, JobLog.queue, JobLog.error_fingerprint, error)
            .where(*UNRESOLVED, JobLog.error_fingerprint == fingerprint)
            .order_by(JobLog.completed_at.desc())
            .limit(1)
            .subquery()
        )
        for fingerprint in fingerprints
    ]
    return {row.error_fingerprint: row for row in await connection.execute(sa.union_all(*each))}


async def _resolved(connection: AsyncConnection, fingerprints: Sequence[str]) -> dict[str, datetime]:
    """When each of these kinds was resolved last."""
    if not fingerprints:
        return {}
    statement = (
        sa.select(JobLog.error_fingerprint, sa.func.max(JobLog.resolved_at))
        .where(JobLog.error_fingerprint.in_(fingerprints), JobLog.resolved_at.is_not(None))
        .group_by(JobLog.error_fingerprint)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}


def _first_line(error: str | None) -> str:
    return (error or "").strip().partition("\n")[0]
