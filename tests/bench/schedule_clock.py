"""What the clock of a clerk costs with many schedules, and how soon an edit holds.

    python -m tests.bench.schedule_clock [schedules] [seconds] [sqlite|postgresql]

All schedules are due once an hour, spread over its minutes: of 10,000, 167 are due at each full minute. Prints the CPU
time of the clock's loop as a share of one core, and how long after its commit an edit is followed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from tests.servers.postgres import PostgresServer
from tests.worker.joblogs.conftest import Offers
from worker.accounts.actor import ENGINE
from worker.db.base import new_id, utc_now
from worker.db.migrate import upgrade
from worker.db.session import Database
from worker.joblogs.enqueue import Reception
from worker.process.clerk import Loop
from worker.schedules import actions, clock
from worker.schedules.cron import Rule
from worker.schedules.models import ScheduledJob, ScheduleFire
from worker.settings import Settings

EDITS = 20


async def fill(database: Database, count: int) -> None:
    now = utc_now()
    rows = []
    for number in range(count):
        expression = f"{number % 60} * * * *"
        rows.append(
            {
                "id": new_id(), "name": f"s{number}", "function": "add", "args": {}, "cron_expression": expression,
                "time_zone": "Europe/Warsaw", "anchor": now, "jitter_s": 0.0, "missed": "latest", "catch_up_s": 86_400,
                "overlap": "allow", "enabled": True, "code_hashes": [], "created_at": now, "updated_at": now, "version": 1,
                "rev": 1, "next_fire_at": Rule(expression, "Europe/Warsaw").next(now),
            }
        )  # fmt: skip
    async with database.transaction() as session:
        for start in range(0, count, 1000):
            await session.execute(sa.insert(ScheduledJob), rows[start : start + 1000])


async def share_of_a_core(database: Database, seconds: float) -> tuple[float, int]:
    loop = Loop("schedules", 0.25, lambda: clock.fire_due(database), full=clock.BATCH)
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(1)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    task.cancel()
    async with database.read() as connection:
        fires = await connection.scalar(sa.select(sa.func.count()).select_from(ScheduleFire))
    return share, int(fires or 0)


async def edits(database: Database) -> list[float]:
    """Seconds from the commit of an edit that makes a schedule due each second to its first fire, less the wait for it."""
    loop = Loop("schedules", 0.25, lambda: clock.fire_due(database), full=clock.BATCH)
    task = asyncio.create_task(loop.run())
    took = []
    for number in range(EDITS):
        async with database.transaction() as session:
            wish = {
                "name": f"edited {number}",
                "function": "add",
                "cron_expression": "0 0 1 1 *",
                "overlap": "allow",
            }
            made = await actions.create(session, wish, actor=ENGINE)
        async with database.transaction() as session:
            await actions.edit(session, made.id, {"cron_expression": "* * * * * *"}, actor=ENGINE)
        first = made.next_fire_at = (await _row(database, made)).next_fire_at
        assert first is not None
        while not (await _fired(database, made)):
            await asyncio.sleep(0.01)
        took.append((utc_now() - first) / timedelta(seconds=1))
        async with database.transaction() as session:
            await actions.disable(session, made.id, actor=ENGINE)
    task.cancel()
    return took


async def _row(database: Database, made: ScheduledJob) -> ScheduledJob:
    async with database.session() as session:
        return await actions.one(session, made.id)


async def _fired(database: Database, made: ScheduledJob) -> bool:
    return await database.any(ScheduleFire, ScheduleFire.scheduled_job_id == made.id)


async def measure(url: str, folder: str, count: int, seconds: float) -> None:
    await upgrade(url)
    database = Database(url)
    settings = Settings.from_env({"DATABASE_URL": url, "M_HOME": folder})
    database.info["reception"] = Reception(Offers(), settings)
    followed = await edits(database)
    await fill(database, count)
    share, fires = await share_of_a_core(database, seconds)
    print(
        f"{database.dialect}: {count} schedules, {fires - EDITS} fires in {seconds:g} s: {share:.1%} of a core"
    )
    print(
        f"an edit is followed {statistics.median(followed):.2f} s (p50), {max(followed):.2f} s (longest) after its first instant"
    )
    await database.close()


def main(count: int, seconds: float, dialect: str) -> None:
    with tempfile.TemporaryDirectory(prefix="m-clock-") as folder:
        if dialect == "sqlite":
            asyncio.run(measure(f"sqlite+aiosqlite:///{Path(folder) / 'desk.db'}", folder, count, seconds))
            return
        server = PostgresServer()
        server.start()
        try:
            asyncio.run(measure(server.database(), folder, count, seconds))
        finally:
            server.close()


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 10_000,
        float(given[1]) if len(given) > 1 else 120.0,
        given[2] if len(given) > 2 else "sqlite",
    )
