"""Doorbells are hints: with every one of them lost, all jobs still run."""

from __future__ import annotations

import dataclasses

import pytest

from tests.chaos import auditor
from tests.chaos.report import Report
from tests.chaos.site import Site, on
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
