"""The results of the jobs on one page of the API's list; long ones stay where they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.job_logs import LIST_ARGS_BYTES
from worker.joblogs.models import JobLog
from worker.jobs.secret import mask


async def short_results(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, Any]:
    """Results up to 8,000 characters of JSON by job id; jobs without one, or with a longer one, are absent."""
    if not ids:
        return {}
    statement = sa.select(JobLog.id, JobLog.result).where(
        JobLog.id.in_(ids),
        JobLog.result.is_not(None),
        sa.func.length(sa.cast(JobLog.result, sa.Text)) <= LIST_ARGS_BYTES,
    )
    return {job_id: mask(result) for job_id, result in await connection.execute(statement)}
