"""A session that commits only while its job is still held: a late execution changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from worker.errors import StaleEpoch
from worker.joblogs.models import JobLog

if TYPE_CHECKING:
    from worker.joblogs.claims import Claimed


def held(job: Claimed, worker_id: UUID) -> sa.ColumnElement[bool]:
    """The condition under which a worker may write about a job."""
    return sa.and_(
        JobLog.id == job.id,
        JobLog.epoch == job.epoch,
        JobLog.worker_id == worker_id,
        JobLog.status == "running",
    )


def fenced(session: AsyncSession, job: Claimed, worker_id: UUID) -> AsyncSession:
    """Makes every commit of this session raise StaleEpoch, and change nothing, once the job is no longer held."""
    session.sync_session.info["fence"] = (job, worker_id)
    return session


@event.listens_for(Session, "before_commit")
def _check_fence(session: Session) -> None:
    fence: tuple[Any, UUID] | None = session.info.get("fence")
    if fence is None:
        return
    job, worker_id = fence
    # The row stays locked until the commit has ended, so nobody takes the job away in between. SQLite's transaction
    # holds the only write lock anyway.
    still = sa.select(JobLog.id).where(held(job, worker_id)).with_for_update(read=True)
    if session.execute(still).first() is None:
        raise StaleEpoch(job_id=job.id, epoch=job.epoch)
