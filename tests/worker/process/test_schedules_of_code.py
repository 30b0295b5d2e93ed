"""A worker with schedules in its code: its clerk stores them, they fire, and a pause is followed at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.nats import NatsServer
from tests.worker.process.harness import Workers, broker_at
from worker.accounts.actor import ENGINE
from worker.schedules import actions
from worker.schedules.models import ScheduledJob, ScheduleFire

pytestmark = pytest.mark.timeout(180)


async def test_they_are_stored_fire_each_second_and_follow_a_pause(
    tmp_path: Path, database_url: str, nats_server: NatsServer
) -> None:
    environ = {"M_JOB_MODULES": "tests.worker.process.scheduled_jobs"}
    async with Workers(tmp_path, database_url, **broker_at(nats_server), **environ) as workers:
        await workers.start()
        stored = await workers.until(lambda: workers.rows(ScheduledJob), lambda rows: len(rows) == 2)
        assert sorted((row.name, row.cron_expression) for row in stored) == [
            ("tick", "every 1s"),
            ("tick 2", "0 3 * * *"),
        ]
        [ticking] = [row for row in stored if row.cron_expression == "every 1s"]
        await workers.until(lambda: fires(workers, ticking), lambda rows: len(rows) >= 3)
        async with workers.engine.database.transaction() as session:
            paused = await actions.pause(session, ticking.id, actor=ENGINE)
        told = await fires(workers, ticking)
        for fire in told:
            assert (await workers.job(fire.job_id)).status == "success"
        assert [fire.fire_at for fire in await fires(workers, ticking)] == [fire.fire_at for fire in told]
        assert paused.paused_at is not None
        assert all(fire.fire_at <= paused.paused_at for fire in told)


async def fires(workers: Workers, schedule: ScheduledJob) -> list[ScheduleFire]:
    return await workers.rows(ScheduleFire, ScheduleFire.scheduled_job_id == schedule.id)
