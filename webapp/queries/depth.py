"""How long the job that waits longest in each queue has been due."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.db.base import utc_now
from worker.joblogs.models import JobLog


async def oldest_ages_s(connection: AsyncConnection) -> dict[str, float]:
    """Seconds by queue; queues in which nothing waits are absent. Reads the partial index of what is queued."""
    oldest = (
        sa.select(JobLog.queue, sa.func.min(JobLog.run_at))
        .where(JobLog.status == "queued", JobLog.deleted_at.is_(None))
        .group_by(JobLog.queue)
    )
    now = utc_now()
    return {queue: max(0.0, (now - at).total_seconds()) for queue, at in await connection.execute(oldest)}
