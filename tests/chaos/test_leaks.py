"""I11: what lived through outages holds no more afterwards than before: memory, descriptors, connections."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.chaos import auditor
from tests.chaos.asking import ask
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site
from worker.process.identity import memory_mb

FEW = 4
"""Descriptors and connections that pools open and close by the moment."""
GROWTH = 1.10
"""What the least of late figures may be of the most of early ones: an allocator's peaks come and go, a leak stays."""
WARM, LOOKS = 8, 8


async def test_what_lives_through_outages_holds_what_it_held_before(
    postgresql_site: Any, seed: int, full: bool, report: Report
) -> None:
    site: Site = await postgresql_site()
    site.host()
    await site.ready(workers=1, clerks=1)
    await site.web()
    nemesis = Nemesis(site, seed)
    await _outages(site, nemesis, WARM if full else 1)
    handles, memory = await _handles(site), await _outages(site, nemesis, LOOKS if full else 1)
    later = await _outages(site, nemesis, LOOKS if full else 1)
    after = await _handles(site)
    for name, was in handles.items():
        report.say(f"{name}, before and after", f"{was}, {after[name]}", f"at most {FEW} more")
    assert all(after[name] <= was + FEW for name, was in handles.items()), (handles, after)
    for kind in memory[0]:
        most, least = max(each[kind] for each in memory), min(each[kind] for each in later)
        report.say(f"MB of the {kind}, most early and least late", f"{most:.0f}, {least:.0f}", "+10 %")
        assert least <= most * GROWTH, (memory, later)
    assert auditor.audit(await auditor.gather(site)) == []


async def _outages(site: Site, nemesis: Nemesis, count: int) -> list[dict[str, float]]:
    """Jobs are asked for while the broker and then the database are gone; all end. Answers the memory after each, in MB."""
    found = []
    for _ in range(count):
        asking = asyncio.create_task(ask(site, 2.0, 25.0))
        await nemesis.kill_broker(0.2)
        await nemesis.crash_database(0.2)
        await asking
        assert await site.settled(60), site.last_words()
        found.append({kind: sum(memory_mb(pid) or 0.0 for pid in pids) for kind, pids in _pids(site).items()})
    return found


async def _handles(site: Site) -> dict[str, int]:
    """Descriptors by kind of process, and connections, when nothing is left to do."""
    await asyncio.sleep(2.0)
    found = {
        f"descriptors of the {kind}": sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        for kind, pids in _pids(site).items()
    }
    async with site.engine.database.read() as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        found["connections to the database"] = int(await connection.scalar(sa.text(statement)) or 0)
    return found


def _pids(site: Site) -> dict[str, list[int]]:
    own = {"supervisor": [site.hosts[0].pid], "web": [site.webs[0].pid]}
    return own | {kind: site.children(kind) for kind in ("worker", "clerk")}
