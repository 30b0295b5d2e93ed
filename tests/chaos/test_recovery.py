"""How soon a killed worker's jobs run again while thousands wait: the rescue lane goes first. In the full set only."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos import auditor
from tests.chaos.generator import Client
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import FULL, Site, on

WAITING = 6_000
KILLS = 15

if FULL:

    @on("postgresql")
    @pytest.mark.timeout(600)
    async def test_rescued_jobs_pass_six_thousand_that_wait(site, seed: int, report: Report) -> None:
        here: Site = await site()
        client, nemesis = Client(here), Nemesis(here, seed)
        for _ in range(2):
            here.host(processes=2)
        await here.ready(workers=4, clerks=2)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WAITING + 1_000):
                tasks.create_task(client.enqueue("work", {"ms": nemesis.dice.choice([100, 300, 1_000])}))
        waiting = []
        for _ in range(KILLS):
            waiting.append(await here.unfinished() or 0)
            await nemesis.kill_worker()
            await asyncio.sleep(3)
        assert await here.settled(400), here.last_words()
        evidence = await auditor.gather(here)
        findings = auditor.audit(evidence)
        found = report.storm(evidence, findings, nemesis.log)
        report.say("waiting at the first and at the last kill", f"{waiting[0]}, {waiting[-1]}")
        assert findings == []
        assert found["cut"] >= KILLS
