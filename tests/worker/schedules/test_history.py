"""A fire outlives its job and keeps how that ended."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.worker.schedules.conftest import ADA, Desk
from tests.worker.schedules.oracle import utc
from worker.db.base import utc_now
from worker.joblogs import actions as jobs
from worker.joblogs import maintenance
from worker.joblogs.models import JobLog
from worker.schedules import actions, history
from worker.settings import Settings

NOON = utc(2026, 3, 1, 12)
BEFORE = NOON - timedelta(seconds=1)
KEPT = Settings(database_url="", secret_key="", retention_days=30)


async def end_and_purge(desk: Desk, schedule_id: object) -> None:
    async with desk.database.transaction() as session:
        for job_id in await session.scalars(
            sa.select(JobLog.id).where(JobLog.scheduled_job_id == schedule_id)
        ):
            await jobs.cancel(session, job_id, actor=ADA)
    async with desk.database.transaction() as session:
        await session.execute(sa.update(JobLog).values(completed_at=utc_now() - timedelta(days=31)))
    await maintenance.purge(desk.database, KEPT)


async def test_a_fire_keeps_its_jobs_end_when_that_is_purged(desk: Desk) -> None:
    made = await desk.due(BEFORE)
    await desk.tick(NOON)
    await end_and_purge(desk, made.id)
    [fire] = await desk.fires(made.id)
    assert await desk.jobs(made.id) == []
    assert (fire.outcome, fire.job_status) == ("enqueued", "cancelled")


async def test_a_schedule_that_fires_often_keeps_the_newest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FIRES_KEPT", 5)
    made = await desk.due(BEFORE, "* * * * *", missed="all", overlap="allow")
    await desk.tick(NOON + timedelta(minutes=19, seconds=30))
    assert len(await desk.fires(made.id)) == 20
    await end_and_purge(desk, made.id)
    assert [f"{fire.fire_at:%M}" for fire in await desk.fires(made.id)] == ["15", "16", "17", "18", "19"]


async def test_a_deleted_schedule_is_purged_and_its_history_is_not(desk: Desk) -> None:
    made = await desk.due(BEFORE)
    await desk.tick(NOON)
    await desk.do(actions.delete, made.id)
    await desk.put(made.id, deleted_at=utc_now() - timedelta(hours=2))
    await maintenance.purge(desk.database, KEPT)
    with pytest.raises(AssertionError):
        await desk.row(made.id)
    assert len(await desk.fires(made.id)) == 1
