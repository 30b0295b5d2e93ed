"""C12 and C13 at the database: restarted, locked, out of connections or of disk, or behind a host that went silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.chaos import auditor, figures
from tests.chaos.asking import Asked, ask, in_full
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site
from tests.fixtures import refuse
from tests.servers.black_hole import BlackHole
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(300)


async def test_c13_a_database_host_that_goes_silent_costs_no_job_a_second_run(
    tmp_path: Path, own_nats_server: NatsServer, own_postgres_server: PostgresServer, report: Report
) -> None:
    """What was connected is lost for good, as behind a firewall that forgot it; after 8 s new connections pass."""
    url = own_postgres_server.database()
    async with BlackHole(own_postgres_server.port) as hole, Site(tmp_path, url, own_nats_server) as site:
        site.desk.environ["DATABASE_URL"] = url.replace(str(own_postgres_server.port), str(hole.port))
        site.host()
        await site.ready(workers=1, clerks=1)
        before = [await site.engine.enqueue("work", {"ms": 4000}) for _ in range(3)]
        await site.until(lambda: _started(site, 3), 60, "the jobs to start")
        hole.swallow()
        during = [await site.engine.enqueue("work", {"ms": 20}) for _ in range(20)]
        await asyncio.sleep(8.0)
        hole.open_again()
        opened = time.monotonic()
        await site.until(lambda: _started(site, 4), 60, "a job to start again")
        report.say("new connections pass -> jobs start", figures.seconds(time.monotonic() - opened), "<= 7 s")
        evidence = await _all_ended(site)
        evidence.accepted = [str(job) for job in before + during]
        assert auditor.audit(evidence) == []
        assert {(row.status, row.lost_count) for row in evidence.jobs.values()} == {("success", 0)}
        assert {len(runs) for runs in evidence.executions.values()} == {1}
        report.say("jobs run twice for it", figures.double_effects(evidence), 0)
        report.say("late finishes", figures.stale_finishes(evidence), 0)


@in_full
async def test_a_database_that_restarts_under_load_is_answered_with_503_and_nothing_is_lost(
    postgresql_site: Any, seed: int, full: bool, report: Report
) -> None:
    site = await _served(postgresql_site)
    nemesis, seconds = Nemesis(site, seed), 12.0 if full else 5.0
    asking = asyncio.create_task(ask(site, seconds, 20.0))
    await asyncio.sleep(1.0)
    await nemesis.crash_database(1.0)
    asked = await asking
    evidence = await _all_ended(site, asked)
    assert set(asked.statuses) <= {202, 503}, str(asked)
    assert asked.statuses[202] > 0
    assert auditor.audit(evidence) == []
    report.say("requests over a crash of PostgreSQL", str(asked), "202 or 503")
    report.say("accepted and lost", figures.lost(evidence), 0)


@in_full
async def test_c12_a_database_without_a_free_connection_is_said_and_passes(
    postgresql_site: Any, report: Report
) -> None:
    site = await _served(postgresql_site)
    async with _every_connection(site):
        asked = await ask(site, 3.0, 10.0)
    evidence = await _all_ended(site, asked)
    again = await ask(site, 0.5, 10.0)
    evidence = await _all_ended(site, asked, again)
    assert set(asked.statuses) <= {202, 503}, str(asked)
    assert set(again.statuses) == {202}
    assert auditor.audit(evidence) == []
    report.say("requests while PostgreSQL takes no connection", str(asked), "202 or 503")


@in_full
async def test_a_locked_database_is_answered_with_503_and_nothing_is_lost(
    sqlite_site: Any, seed: int, report: Report
) -> None:
    site = await _served(sqlite_site)
    nemesis = Nemesis(site, seed)
    asking = asyncio.create_task(ask(site, 4.0, 5.0))
    await nemesis.lock_database(8.0)
    asked = await asking
    evidence = await _all_ended(site, asked)
    assert set(asked.statuses) <= {202, 503}, str(asked)
    assert auditor.audit(evidence) == []
    assert all(row.lost_count == 0 for row in evidence.jobs.values())
    report.say("requests while SQLite is locked for 8 s", str(asked), "202 or 503")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        refuse("only on Linux as root: a small file system is mounted")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        refuse("only on machines that let tests mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_c12_a_full_disk_is_said_and_passes(
    tmp_path: Path, small_disk: Path, own_nats_server: NatsServer, report: Report
) -> None:
    async with Site(tmp_path, f"sqlite+aiosqlite:///{small_disk / 'desk.db'}", own_nats_server) as site:
        site.host()
        await site.ready(workers=1, clerks=1)
        await site.web()
        await ask(site, 0.5, 10.0)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        full_disk = await ask(site, 3.0, 10.0)
        ballast.unlink()
        evidence = await _all_ended(site, full_disk)
        again = await ask(site, 0.5, 10.0)
        evidence = await _all_ended(site, full_disk, again)
        assert set(full_disk.statuses) <= {202, 503}, str(full_disk)
        assert full_disk.statuses[503] > 0, "the disk was not full"
        assert set(again.statuses) == {202}
        assert auditor.audit(evidence) == []
        report.say("requests with a full disk", str(full_disk), "202 or 503")


async def _served(make: Any) -> Site:
    site: Site = await make()
    site.host()
    await site.ready(workers=1, clerks=1)
    await site.web()
    await ask(site, 0.5, 10.0)
    return site


async def _all_ended(site: Site, *asked: Asked) -> auditor.Evidence:
    assert await site.settled(90), site.last_words()
    evidence = await auditor.gather(site)
    evidence.accepted = [job for each in asked for job in each.accepted]
    return evidence


async def _started(site: Site, count: int) -> bool:
    return sum(line.phase == "start" for line in site.lines()) >= count


@asynccontextmanager
async def _every_connection(site: Site) -> AsyncIterator[None]:
    """Takes what PostgreSQL has left, the reserved ones too, and lets its own backends of the desk go."""
    assert site.postgres is not None
    url = site.postgres.url("postgres").replace("+asyncpg", "")
    held: list[Any] = []
    try:
        await site.do(
            lambda: site.postgres.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname LIKE 'desk_%'"
            )
        )
        for _ in range(300):
            try:
                held.append(await asyncpg.connect(url))
            except asyncpg.PostgresError:
                break
        yield
    finally:
        await asyncio.gather(*(connection.close() for connection in held), return_exceptions=True)
