"""C6, wrong clocks: a host an hour ahead and one an hour behind, each with a sweeper, rob nobody and run nothing twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.chaos import auditor, figures
from tests.chaos.asking import ask, in_full
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from tests.desk import Process

pytestmark = pytest.mark.timeout(240)
WRONG_CLOCK = Path(__file__).parent / "wrong_clock"
LEASE_S = 3.0


@on("postgresql")
async def test_c6_hosts_that_disagree_about_the_hour_rerun_nothing(site, report: Report) -> None:
    """Each job lasts longer than the lease, so that whoever goes by a wrong clock has the time to rob it."""
    here: Site = await site(M_LEASE_S=f"{LEASE_S:g}")
    for off_s in (3600, -3600):
        here.hosts.append(_host(here, off_s))
    await here.ready(workers=2, clerks=2)
    early = 2 if here.dialect == "sqlite" else 0
    for _ in range(12):
        run_at = None
        if early:  # on SQLite a host goes by its own clock: one that is behind would take it an hour later
            async with here.engine.database.session() as session:
                run_at = await here.engine.database.now(session) - timedelta(hours=early)
        await here.engine.enqueue("work", {"ms": int(LEASE_S * 1500)}, run_at=run_at)
    assert await here.settled(120), here.last_words()
    evidence = await auditor.gather(here)
    assert auditor.audit(evidence) == []
    assert {(row.status, row.lost_count, row.attempt) for row in evidence.jobs.values()} == {
        ("success", 0, 1)
    }
    workers = {run.start.worker for runs in evidence.executions.values() for run in runs}
    assert len(workers) == 2, "only one of the hosts ran anything"
    report.say("needless second runs with clocks 2 h apart", figures.double_effects(evidence), 0)


@in_full
async def test_c6_a_web_process_with_a_wrong_clock_makes_nobody_wait(postgresql_site, report: Report) -> None:
    here: Site = await postgresql_site()
    here.host()
    await here.ready(workers=1, clerks=1)
    here.desk.environ |= _wrong(3600)
    await here.web()
    asked = await ask(here, 1.0, 10.0)
    assert set(asked.statuses) == {202}, str(asked)
    assert await here.settled(60), here.last_words()
    evidence = await auditor.gather(here)
    assert auditor.audit(evidence) == []
    report.say(
        "jobs of a web process an hour ahead that ran at once", len(asked.accepted), len(asked.accepted)
    )


def _host(site: Site, off_s: int) -> Process:
    return site.desk.start("worker", "--processes", "1", "--concurrency", "6", environ=_wrong(off_s))


def _wrong(off_s: int) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {"CHAOS_CLOCK_S": str(off_s), "PYTHONPATH": f"{WRONG_CLOCK}:{root}"}
