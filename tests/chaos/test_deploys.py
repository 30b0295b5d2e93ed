"""C9, deploys: every worker is stopped or rolled under load, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.chaos import auditor, figures
from tests.chaos.generator import Client
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from worker.joblogs.models import JobAttempt

pytestmark = pytest.mark.timeout(400)


@on("postgresql")
async def test_c9_rolling_restarts_under_load_lose_nothing_and_burn_nothing(
    site, seed: int, full: bool, report: Report
) -> None:
    here: Site = await site()
    client, nemesis = Client(here), Nemesis(here, seed)
    for _ in range(2):
        here.host()
    await here.ready(workers=2, clerks=2)
    await here.web()
    load = asyncio.create_task(_load(client, nemesis, per_s=30 if full else 12))
    try:
        for _ in range(3 if full else 1):
            if full:  # they outlast a worker's drain, so they are released in the middle
                await asyncio.gather(*(client.enqueue("work", {"ms": 40_000}) for _ in range(4)))
            await _deploy(here, nemesis)
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
        await client.close()
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    evidence.accepted = [str(job) for job in client.accepted.values()]
    findings = auditor.audit(evidence)
    burnt = sum(row.attempt - 1 for row in evidence.jobs.values())
    errors = sum(status >= 500 for status in client.statuses)
    report.say("jobs during the deploys", len(evidence.jobs))
    report.say("restarts of a host", sum(strike.kind in ("sigterm", "sighup") for strike in nemesis.log))
    released = len(await here.rows(JobAttempt, JobAttempt.outcome == "released"))
    report.say("executions released in the middle", released)
    report.say("lost", figures.lost(evidence), 0)
    report.say("attempts burnt", burnt, 0)
    report.say("double effects", figures.double_effects(evidence), 0)
    report.say("answers 5xx", f"{errors} of {len(client.statuses)}", 0)
    assert findings == []
    assert len(evidence.jobs) >= 30
    assert not full or released > 0
    assert (burnt, errors, figures.double_effects(evidence)) == (0, 0, 0)
    assert {row.lost_count for row in evidence.jobs.values()} == {0}


async def _deploy(site: Site, nemesis: Nemesis) -> None:
    """One host is replaced by another that starts first, the other one rolls its children."""
    old, other = site.hosts
    site.host()
    await site.ready(workers=3, clerks=3)
    assert await nemesis.stop_host(old) == 0
    await nemesis.roll_host(other)


async def _load(client: Client, nemesis: Nemesis, per_s: float) -> None:
    """Jobs through the API until cancelled; what was asked is answered first."""
    number = 0
    async with asyncio.TaskGroup() as tasks:
        try:
            while True:
                body = {
                    "job_name": nemesis.dice.choice(["work", "work_in_a_thread"]),
                    "args": {"ms": nemesis.dice.choice([20, 100, 800])},
                }
                number += 1
                tasks.create_task(_run(client, number, body))
                await asyncio.sleep(1 / per_s)
        except asyncio.CancelledError:
            return


async def _run(client: Client, number: int, body: dict[str, object]) -> None:
    answer = await client.call("POST", "/api/v1/jobs", body, key=f"load-{number}")
    # 200: asked again, since the first answer did not come in time.
    assert answer.status_code in (200, 202), answer.text
    client.accepted[number] = answer.json()["job_id"]
