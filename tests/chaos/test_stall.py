"""C5, standing still: a host that is frozen, an event loop that is blocked. Who is late changes nothing; who only blocks loses nothing."""

from __future__ import annotations

import pytest

from tests.chaos import auditor, figures
from tests.chaos.auditor import Leave
from tests.chaos.generator import Client
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on

pytestmark = pytest.mark.timeout(240)


async def test_c5_a_frozen_hosts_jobs_run_elsewhere_and_its_late_finishes_are_dropped(
    postgresql_site, seed: int, full: bool, report: Report
) -> None:
    """PostgreSQL only: a SQLite file has one host, and a process frozen inside a transaction holds its lock."""
    lease_s = 15.0 if full else 3.0
    site: Site = await postgresql_site(M_LEASE_S=f"{lease_s:g}")
    client, nemesis = Client(site), Nemesis(site, seed)
    frozen = site.host(concurrency=20)
    site.host(concurrency=20)
    await site.ready(workers=2, clerks=2)
    jobs = [await client.enqueue("work", {"ms": int(lease_s * 2000)}) for _ in range(16)]
    await _started(site, len(jobs))
    strike = nemesis.freeze(site.tree(frozen))
    meanwhile = site.running_in(strike.pids)
    await _started(site, len(jobs) + meanwhile)
    nemesis.thaw(strike)  # while the second runs are under way
    assert await site.settled(60 + 4 * lease_s), site.last_words()
    await _until_said(site, meanwhile)
    evidence = await auditor.gather(site)
    evidence.accepted = [str(job) for job in jobs]
    assert auditor.audit(evidence, Leave(overlaps=True)) == []
    cuts = figures.cuts(evidence.executions, nemesis.log, ["freeze"])
    again = [cut.again_s for cut in cuts if cut.again_s is not None]
    assert len(again) == meanwhile > 0
    assert all(row.status == "success" and row.attempt == 1 for row in evidence.jobs.values())
    report.say("jobs of a host that was lost", len(again))
    report.say(
        f"lost -> running elsewhere, p95 (lease {lease_s:g} s)",
        figures.seconds(figures.quantile(again, 0.95)),
        f"<= {lease_s + 2:g} s",
    )
    report.say("late finishes, dropped and counted", figures.stale_finishes(evidence), meanwhile)


@on("postgresql")
async def test_c5_a_blocked_event_loop_costs_no_job_a_second_run(site, seed: int, report: Report) -> None:
    """The beat does not come from the loop that runs jobs, so whoever blocks it for longer than the lease keeps what it holds.

    On SQLite a loop that is blocked inside a transaction keeps the sweeper out too, so there it proves less.
    """
    here: Site = await site(M_LEASE_S="6")
    client = Client(here)
    here.host()
    await here.ready(workers=1, clerks=1)
    for _ in range(3):
        await client.enqueue("work", {"ms": 300})
    await client.enqueue("blocks_the_loop", {"seconds": 16.0})
    for _ in range(3):
        await client.enqueue("work", {"ms": 300})
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    assert auditor.audit(evidence) == []
    assert [row.lost_count for row in evidence.jobs.values()] == [0] * 7
    assert {len(runs) for runs in evidence.executions.values()} == {1}
    report.say("second runs beside a loop blocked for 2.7 leases", figures.double_effects(evidence), 0)


async def _started(site: Site, count: int) -> None:
    async def started() -> bool:
        return sum(line.phase == "start" for line in site.lines()) >= count

    await site.until(started, 90, f"{count} starts")


async def _until_said(site: Site, count: int) -> None:
    """The woken processes hand in what they have; what is refused is counted."""

    async def said() -> bool:
        return figures.stale_finishes(await auditor.gather(site)) >= count

    await site.until(said, 30, f"{count} stale finishes to be counted")
