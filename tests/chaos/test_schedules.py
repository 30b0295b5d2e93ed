"""C7, several clerks and no leader: schedules fire once per due instant while clerks, or whole hosts, are killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import timedelta

import pytest

from tests.chaos import auditor
from tests.chaos.generator import CLIENT
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from worker.db.base import utc_now
from worker.schedules.actions import create
from worker.schedules.models import ScheduledJob, ScheduleFire

pytestmark = pytest.mark.timeout(240)


@on("postgresql")
async def test_c7_each_due_instant_fires_once_while_clerks_are_killed(
    site, seed: int, full: bool, report: Report
) -> None:
    here: Site = await site()
    nemesis = Nemesis(here, seed)
    schedules, lasts_s, hosts = (40, 60, 3) if full else (12, 8, 2)
    for _ in range(hosts):
        here.host()
    await here.ready(workers=hosts, clerks=hosts)
    begin = utc_now().replace(microsecond=0) + timedelta(seconds=6)  # when all are stored
    instants = [begin + timedelta(seconds=n) for n in range(lasts_s)]
    rule = {
        "function": "work", "args": {"ms": 5}, "cron_expression": "every 1s", "missed": "all", "overlap": "allow",
        "start_at": begin, "end_at": instants[-1] + timedelta(milliseconds=500),
    }  # fmt: skip
    async with here.engine.database.transaction() as session:
        for number in range(schedules):
            await create(session, {"name": f"every second {number}", **rule}, actor=CLIENT)
    kill, every_s = (nemesis.kill_host, 3.0) if full else (nemesis.kill_clerk, 2.0)
    killer = asyncio.create_task(nemesis.again_and_again(every_s, kill, 7.0))

    async def over() -> bool:
        return not await here.rows(ScheduledJob, ScheduledJob.next_fire_at.is_not(None))

    await asyncio.sleep(lasts_s + 6)
    killer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await killer
    await here.until(over, 60, "every schedule to end")
    assert await here.settled(60), here.last_words()
    fires = await here.rows(ScheduleFire)
    counted = Counter((fire.scheduled_job_id, fire.fire_at) for fire in fires)
    named = {schedule.id for schedule in await here.rows(ScheduledJob)}
    report.say("due instants, fired", f"{schedules * lasts_s}, {len(counted)}", "all")
    report.say("hosts killed meanwhile" if full else "clerks killed meanwhile", len(nemesis.log))
    report.say("instants fired twice", sum(count > 1 for count in counted.values()), 0)
    assert counted == Counter({(schedule, at): 1 for schedule in named for at in instants})
    assert {fire.outcome for fire in fires} == {"enqueued"}
    evidence = await auditor.gather(here)
    assert set(evidence.jobs) == {str(fire.job_id) for fire in fires}
    assert len(evidence.jobs) == len(fires)
    assert auditor.audit(evidence) == []
