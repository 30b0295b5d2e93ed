"""C10, cancel races: jobs are cancelled in every phase of their life, some are opened again; each ends once, and as the caller was told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID

import pytest

from tests.chaos import auditor, figures
from tests.chaos.generator import Cancel, Client
from tests.chaos.ledger import Execution
from tests.chaos.report import Report
from tests.chaos.site import Site, on

pytestmark = pytest.mark.timeout(400)
OPENED_AGAIN = 0.4
ENDED_WITHIN_S = 60


@on("postgresql")
async def test_c10_a_cancel_ends_a_job_or_comes_too_late_and_says_which(
    site, seed: int, full: bool, report: Report
) -> None:
    here: Site = await site()
    dice, client = random.Random(seed), Client(here)
    here.host(processes=2)
    await here.ready(workers=2, clerks=1)
    await here.web()  # through which the cancels go
    count = 1000 if full else 100
    reopened: Counter[str] = Counter()
    at_once = asyncio.Semaphore(12)

    async def race() -> None:
        async with at_once:
            await _race(client, dice.choice(["work", "work", "work_in_a_thread"]), dice, reopened)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(race())
    await client.close()
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    evidence.reopened = reopened
    findings = auditor.audit(evidence)
    told = Counter(cancel.answer for cancel in client.cancels)
    stopped = figures.running_cancels(client.cancels, evidence.executions)
    report.say("cancels, and what they were answered", f"{len(client.cancels)}: {dict(told)}")
    report.say("other than one end", figures.not_one_end(findings), 0)
    report.say("told otherwise than it ended", len(_lies(client.cancels, evidence.jobs, reopened)), 0)
    report.say("cancel -> running code has stopped, p50", figures.seconds(figures.quantile(stopped, 0.5)))
    report.say(
        "cancel -> running code has stopped, p95",
        figures.seconds(figures.quantile(stopped, 0.95)),
        "<= 0.5 s",
    )
    assert findings == []
    assert _lies(client.cancels, evidence.jobs, reopened) == []
    assert _ran_on(client.cancels, evidence.executions, reopened) == []
    assert len(client.cancels) == count
    assert set(told) == {"done", "requested", "too late"}
    assert all(opened == 1 for opened in reopened.values())
    assert any(len(evidence.executions.get(job, [])) > 1 for job in reopened), "none had run before"


async def _race(client: Client, name: str, dice: random.Random, reopened: Counter[str]) -> None:
    """Enqueues, cancels somewhere between before the start and after the end, and opens some of the cancelled again."""
    job_id = await client.enqueue(name, {"ms": dice.choice([5, 50, 400, 2000])})
    await asyncio.sleep(dice.expovariate(5))
    await client.cancel(job_id)
    if dice.random() < OPENED_AGAIN and await _is_cancelled(client, job_id):
        await client.retry(job_id)
        reopened[str(job_id)] += 1


async def _is_cancelled(client: Client, job_id: UUID) -> bool:
    """How it ended, for which a running one is waited for."""
    async with asyncio.timeout(ENDED_WITHIN_S):
        while (status := (await client.call("GET", f"/api/v1/jobs/{job_id}")).json()["status"]) == "running":
            await asyncio.sleep(0.05)
    return bool(status == "cancelled")


def _ran_on(
    cancels: list[Cancel], executions: dict[str, list[Execution]], reopened: Counter[str]
) -> list[str]:
    """Jobs whose code went on after it was said that the cancel is done."""
    done = {str(each.job_id): each.answered_at for each in cancels if each.answer == "done"}
    return [
        job
        for job, at in done.items()
        if not reopened[job]
        and any(line.at > at for run in executions.get(job, []) for line in [run.start, *run.steps])
    ]


def _lies(cancels: list[Cancel], jobs: dict[str, Any], reopened: Counter[str]) -> list[str]:
    """Jobs that ended otherwise than whoever cancelled them was told."""
    allowed = {"done": {"cancelled"}, "requested": {"cancelled", "success"}, "too late": {"success"}}
    return [
        str(cancel.job_id)
        for cancel in cancels
        if jobs[str(cancel.job_id)].status
        not in ({"success"} if reopened[str(cancel.job_id)] else allowed[cancel.answer])
    ]
