"""The database is away for longer than a lease: nobody is declared dead for it, and everything goes on where it was."""

from __future__ import annotations

import pytest

from tests.chaos import auditor
from tests.chaos.generator import Client
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site

pytestmark = pytest.mark.timeout(240)


async def test_jobs_outlive_a_database_that_is_away_for_two_leases(
    postgresql_site, seed: int, report: Report
) -> None:
    site: Site = await postgresql_site(M_LEASE_S="3")
    client, nemesis = Client(site), Nemesis(site, seed)
    site.host()
    site.host()
    await site.ready(workers=2, clerks=2)
    jobs = [await client.enqueue("work", {"ms": ms}) for ms in (2_000, 4_000, 9_000) for _ in range(4)]

    async def started() -> bool:
        return sum(line.phase == "start" for line in site.lines()) == len(jobs)

    await site.until(started, 60, "all jobs to start")
    strike = await nemesis.crash_database(7.0)
    assert await site.settled(60), site.last_words()
    evidence = await auditor.gather(site)
    evidence.accepted = [str(job) for job in jobs]
    assert auditor.audit(evidence) == []
    assert [(row.status, row.lost_count, row.attempt) for row in evidence.jobs.values()] == [
        ("success", 0, 1)
    ] * len(jobs)
    assert {len(runs) for runs in evidence.executions.values()} == {1}
    report.say(
        f"jobs rescued because the database was away {strike.until - strike.at:.0f} s (lease 3 s)", 0, 0
    )
