"""Doorbells are hints: with every one of them lost, all jobs still run. And yet none is wasted."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.chaos import auditor
from tests.chaos.jobs import BLIND
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from tests.servers.postgres import slow_commits
from worker.engine import Engine

pytestmark = pytest.mark.timeout(120)


@on("sqlite")
async def test_all_jobs_end_although_nobody_hears_a_doorbell(site, report: Report) -> None:
    """They are enqueued by an engine without a broker, so its doorbells ring where no worker is."""
    here: Site = await site()
    here.host()
    await here.ready(workers=1, clerks=1)
    settings = dataclasses.replace(here.engine.settings, nats_url=None)
    async with Engine.create(settings) as silent:
        for number in range(60):
            await silent.enqueue("fails_once" if number % 10 == 0 else "work", {"ms": 20})
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    assert len(evidence.jobs) == 60
    assert auditor.audit(evidence) == []
    report.say("jobs that ended without a doorbell", "60 of 60", "all")


async def test_a_doorbell_rings_for_what_a_worker_can_see(postgresql_site, report: Report) -> None:
    """Nobody looks without a doorbell here and commits are slow: one that rings before its commit leaves the job lying."""
    here: Site = await postgresql_site(**BLIND)
    here.host()
    await here.ready(workers=1, clerks=1)
    async with here.engine.database.engine.begin() as connection:
        for statement in slow_commits("INSERT", "job_logs", 0.05):
            await connection.exec_driver_sql(statement)
    await asyncio.gather(*(here.engine.enqueue("work", {"ms": 1}) for _ in range(100)))
    assert await here.settled(30), here.last_words()
    evidence = await auditor.gather(here)
    assert len(evidence.jobs) == 100
    assert auditor.audit(evidence) == []
    report.say("jobs that ended although nobody looks", "100 of 100", "all")


async def test_a_doorbell_that_led_to_no_claim_comes_again(
    postgresql_site, seed: int, report: Report
) -> None:
    """Nobody looks, and the database stops at once in the middle of claims, three times."""
    here: Site = await postgresql_site(**BLIND)
    here.host()
    await here.ready(workers=1, clerks=1)
    nemesis = Nemesis(here, seed)
    for _ in range(300):
        await here.engine.enqueue("work", {"ms": 200})
    for _ in range(3):
        await nemesis.crash_database(0.5)
        await asyncio.sleep(1.0)
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    assert len(evidence.jobs) == 300
    assert auditor.audit(evidence) == []
    report.say("jobs that ended although their claims failed and nobody looks", "300 of 300", "all")
