"""C1 and C2, the big storms: workers, clerks, hosts, broker and database are killed under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chaos import auditor, figures
from tests.chaos.asking import in_full
from tests.chaos.generator import Client, Mix, plan, storm
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True, slots=True)
class Size:
    mix: Mix
    hosts: int
    processes: int
    worker_every_s: float
    clerk_every_s: float
    broker_kills: int
    database_strikes: int
    host_kills: int
    supervisor_kills: int
    patience_s: float
    cut_at_least: int
    """Executions that the strikes must have met in mid-run, or the storm was none."""


MOST_DOUBLES = 0.1
"""Effects that happened twice, for each child that died."""
LONGER = ((20, 0.5), (100, 0.25), (300, 0.2), (1500, 0.05))
SHORT = Size(storm(400, per_s=40, die=0.004, durations=LONGER), 2, 1, 1.5, 4.0, 1, 1, 1, 0, 90, 3)
FULL = Size(storm(10_000), 2, 2, 0.8, 10.0, 5, 3, 3, 2, 400, 200)


async def test_c1_storm_on_postgresql(postgresql_site, seed: int, full: bool, report: Report) -> None:
    await weather(await postgresql_site(), seed, FULL if full else SHORT, report)


async def test_c2_storm_on_sqlite(sqlite_site, seed: int, full: bool, report: Report) -> None:
    await weather(await sqlite_site(), seed, FULL if full else SHORT, report)


@in_full
@pytest.mark.parametrize("any_broker", ["redis"], indirect=True)
@on("postgresql")
async def test_a_storm_on_redis(own_site, seed: int, report: Report) -> None:
    """Redis keeps nothing over a kill here: groups are made again, and what waits is found by looking."""
    await weather(await own_site(), seed, FULL, report)


async def weather(site: Site, seed: int, size: Size, report: Report) -> None:
    for _ in range(size.hosts):
        site.host(processes=size.processes)
    await site.ready(workers=size.hosts * size.processes, clerks=size.hosts)
    await site.web()
    wishes = plan(seed, size.mix)
    client, nemesis = Client(site), Nemesis(site, seed)
    started = time.monotonic()
    killers = [
        asyncio.create_task(nemesis.again_and_again(size.worker_every_s, nemesis.kill_worker, 0.5)),
        asyncio.create_task(
            nemesis.again_and_again(size.clerk_every_s, nemesis.kill_clerk, size.clerk_every_s / 2)
        ),
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(client.carry_out(wishes))
            tasks.create_task(nemesis.rage(_strikes(nemesis, size, wishes[-1].at_s)))
        settled = await site.settled(size.patience_s)
    finally:
        for killer in killers:
            killer.cancel()
        await asyncio.gather(*killers, return_exceptions=True)
        await client.close()
    assert settled, await _left(site)
    lasted_s = time.monotonic() - started
    evidence = await auditor.gather(site)
    evidence.accepted = [str(job_id) for job_id in client.accepted.values()]
    evidence.repeats = [(str(first), str(second)) for first, second in client.repeats]
    findings = auditor.audit(evidence, auditor.Leave(strikes=nemesis.log))
    found = report.storm(evidence, findings, nemesis.log)
    report.say("first accepted -> all ended", figures.seconds(lasted_s))
    assert len(client.accepted) == size.mix.count
    assert findings == [], "\n".join(auditor.story(evidence, each.job) for each in findings[:5])
    assert found["cut"] >= size.cut_at_least
    if size is FULL:  # of a few deaths a share says nothing
        assert found["doubles"] <= MOST_DOUBLES * found["deaths"]


def _strikes(nemesis: Nemesis, size: Size, lasts_s: float) -> list[Any]:
    """Hosts, supervisors alone, broker and database, each a few times, in equal parts of the time."""
    dice = nemesis.dice
    strike_database = (
        (lambda: nemesis.crash_database(dice.uniform(0.2, 1.0)))
        if nemesis.site.postgres
        else (lambda: nemesis.lock_database(2.0))
    )
    return [
        *nemesis.spread(size.host_kills, lasts_s, lambda: nemesis.kill_host(processes=size.processes)),
        *nemesis.spread(
            size.supervisor_kills, lasts_s, lambda: nemesis.kill_supervisor(processes=size.processes)
        ),
        *nemesis.spread(size.broker_kills, lasts_s, lambda: nemesis.kill_broker(dice.uniform(0.2, 2.0))),
        *nemesis.spread(size.database_strikes, lasts_s, strike_database),
    ]


async def _left(site: Site) -> str:
    findings = "\n".join(map(str, auditor.audit(await auditor.gather(site))[:20]))
    return f"jobs that did not end:\n{findings}\n{site.last_words()}"
