"""What stays of the past: a fire outlives its job and keeps how that ended."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.schedules.models import ScheduleFire

FIRES_FOR = timedelta(days=420)
"""Sixty runs of a weekly schedule."""
FIRES_KEPT = 1000
"""A schedule that fires often keeps this many beyond the time that its jobs are kept."""


async def keep_ends(session: AsyncSession, ends: Mapping[UUID, tuple[UUID, str]], before: datetime) -> None:
    """Writes how these jobs, which are being purged, ended: by job id, its schedule and its status.

    Of schedules that fire often, the oldest fires from before `before` go with their jobs.
    """
    if not ends:
        return
    await (await session.connection()).execute(
        sa.update(ScheduleFire)
        .where(ScheduleFire.job_id == sa.bindparam("b_job"))
        .values(job_status=sa.bindparam("b_status")),
        [{"b_job": job_id, "b_status": status} for job_id, (_, status) in ends.items()],
    )
    for schedule_id in {schedule_id for schedule_id, _ in ends.values()}:
        await _trim(session, schedule_id, before)


async def _trim(session: AsyncSession, schedule_id: UUID, before: datetime) -> None:
    newest = (
        sa.select(ScheduleFire.fire_at)
        .where(ScheduleFire.scheduled_job_id == schedule_id)
        .order_by(ScheduleFire.fire_at.desc())
        .offset(FIRES_KEPT)
        .limit(1)
    )
    oldest_kept = await session.scalar(newest)
    if oldest_kept is not None:
        await session.execute(
            sa.delete(ScheduleFire)
            .where(
                ScheduleFire.scheduled_job_id == schedule_id,
                ScheduleFire.fire_at <= oldest_kept,
                ScheduleFire.fire_at < before,
            )
            .execution_options(synchronize_session=False)
        )
