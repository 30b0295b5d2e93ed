"""C11, poison: jobs that kill or choke whoever runs them end after a few tries, alone, and cost their neighbours nothing."""

from __future__ import annotations

import pytest

from tests.chaos import auditor, figures
from tests.chaos.generator import Client
from tests.chaos.report import Report
from tests.chaos.site import Site, on

pytestmark = pytest.mark.timeout(300)
DEADLY = ("dies", "crashes")
CHOKING = {
    "runs_out_of_memory": {},
    "recurses": {},
    "gives_too_much": {"mb": 60},
    "gives_what_is_no_json": {},
}


@on("sqlite")
async def test_c11_poison_is_isolated_then_convicted_and_its_neighbours_succeed(
    site, seed: int, report: Report
) -> None:
    here: Site = await site()
    client = Client(here)
    here.host(processes=2)
    await here.ready(workers=2, clerks=1)
    poison = [str(await client.enqueue(name, {"ms": 100})) for name in DEADLY]
    for name, args in CHOKING.items():
        await client.enqueue(name, args)
    for number in range(40):
        await client.enqueue("work", {"ms": 20 + 20 * (number % 5)})
    assert await here.settled(120), here.last_words()
    evidence = await auditor.gather(here)
    findings = auditor.audit(evidence)
    ended = {name: evidence.jobs[job] for name, job in zip(DEADLY, poison, strict=True)}
    for name, job in zip(DEADLY, poison, strict=True):
        report.say(f"starts of a job that {name}", len(evidence.executions[job]), "2 in company, 3 alone")
    report.say("innocent jobs failed as poison", figures.innocent_poison(evidence), 0)
    assert findings == []
    for name, job in zip(DEADLY, poison, strict=True):
        runs = evidence.executions[job]
        company = [run for run in runs if _was_worker(evidence.workers, run.start.pid)]
        told = [
            line for line in auditor.told_deaths(evidence)[job] if not _was_worker(evidence.workers, line.pid)
        ]
        assert runs[: len(company)] == company, name
        assert (len(company) <= 2, ended[name].died_alone) == (True, 3), name
        assert len(told) <= 3 <= len(runs) - len(company), name
    innocent = [row for row in evidence.jobs.values() if row.job_name == "work"]
    assert {(row.status, row.attempt) for row in innocent} == {("success", 1)}


def _was_worker(workers: list, pid: int) -> bool:
    return any(row.pid == pid for row in workers)
