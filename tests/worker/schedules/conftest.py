"""A database with a reception that knows two jobs, and schedules on it under a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from tests.worker.joblogs.conftest import ADA, Offer, Offers
from worker.db.session import Database, Pending
from worker.events.models import OutboxRow
from worker.joblogs.enqueue import Reception
from worker.joblogs.models import JobLog
from worker.schedules import actions, clock
from worker.schedules.models import ScheduledJob, ScheduleFire
from worker.settings import Settings

__all__ = ["ADA", "Desk", "Offer"]


class Desk:
    """Shortcuts to what the slice does and to what it wrote."""

    def __init__(self, database: Database, offers: Offers) -> None:
        self.database = database
        self.offers = offers
        self.told: list[Pending] = []

    async def listen(self, pending: Pending) -> None:
        self.told.append(pending)

    async def create(self, cron_expression: str = "0 * * * *", **wish: Any) -> ScheduledJob:
        wish = {"name": "hourly", "function": "add", **wish, "cron_expression": cron_expression}
        async with self.database.transaction() as session:
            return await actions.create(session, wish, actor=ADA)

    async def due(self, at: datetime, cron_expression: str = "0 * * * *", **wish: Any) -> ScheduledJob:
        """A schedule whose first instant is the first one from `at`."""
        made = await self.create(cron_expression, **wish)
        first = made.rule.next(at) if made.start_at is None else made.next_fire_at
        await self.put(made.id, next_fire_at=first)
        return await self.row(made.id)

    async def do(self, action: Any, schedule_id: UUID, *given: Any, **options: Any) -> Any:
        async with self.database.transaction() as session:
            return await action(session, schedule_id, *given, actor=ADA, **options)

    async def put(self, schedule_id: UUID, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(
                sa.update(ScheduledJob).where(ScheduledJob.id == schedule_id).values(**values)
            )

    async def tick(self, now: datetime) -> int:
        """Looks until nothing is due at `now`."""
        done = 0
        while looked := await clock.fire_due(self.database, now):
            done += looked
        return done

    async def row(self, schedule_id: UUID) -> ScheduledJob:
        async with self.database.session() as session:
            found = await session.get(ScheduledJob, schedule_id)
            assert found is not None
            return found

    async def fires(self, schedule_id: UUID) -> list[ScheduleFire]:
        async with self.database.session() as session:
            statement = sa.select(ScheduleFire).where(ScheduleFire.scheduled_job_id == schedule_id)
            return list(await session.scalars(statement.order_by(ScheduleFire.fire_at)))

    async def outcomes(self, schedule_id: UUID) -> list[tuple[str, str]]:
        return [(f"{fire.fire_at:%d %H:%M:%S}", fire.outcome) for fire in await self.fires(schedule_id)]

    async def jobs(self, schedule_id: UUID) -> list[JobLog]:
        async with self.database.session() as session:
            statement = sa.select(JobLog).where(JobLog.scheduled_job_id == schedule_id)
            return list(await session.scalars(statement.order_by(JobLog.run_at)))

    async def events(self, prefix: str = "schedule.") -> list[dict[str, Any]]:
        async with self.database.session() as session:
            rows = await session.scalars(sa.select(OutboxRow).order_by(OutboxRow.id))
            return [event for row in rows for event in row.events if event["event_type"].startswith(prefix)]


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    database = Database(database_url)
    settings = Settings.from_env({"DATABASE_URL": database_url, "M_HOME": str(tmp_path)})
    offers = Offers()
    database.info["reception"] = Reception(offers, settings)
    desk = Desk(database, offers)
    database.on_commit = desk.listen
    yield desk
    await database.close()
