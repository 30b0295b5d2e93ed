"""I11: what lived through outages holds no more afterwards than before: memory, descriptors, connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.chaos import auditor
from tests.chaos.asking import ask
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site
from worker.process.identity import memory_mb

pytestmark = pytest.mark.timeout(400)
FEW = 4
"""Descriptors and connections that pools open and close by the moment; the most of early looks counts, and the least of late ones."""
GROWTH = 1.10
"""What the least of late figures may be of the most of early ones: an allocator's peaks come and go, a leak stays."""
WARM, LOOKS = 8, 8
SHORT_LOOKS = 2


async def test_what_lives_through_outages_holds_what_it_held_before(
    postgresql_site: Any, seed: int, full: bool, report: Report
) -> None:
    site: Site = await postgresql_site()
    site.host()
    await site.ready(workers=1, clerks=1)
    await site.web()
    nemesis = Nemesis(site, seed)
    await _outages(site, nemesis, WARM if full else 1)
    early = await _outages(site, nemesis, LOOKS if full else SHORT_LOOKS)
    later = await _outages(site, nemesis, LOOKS if full else SHORT_LOOKS)
    late = later[len(later) // 2 :]  # some outages after the early ones: what leaks at each has added up
    for name in early[0].handles:
        was, now = max(each.handles[name] for each in early), min(each.handles[name] for each in late)
        report.say(f"{name}, most early and least late", f"{was}, {now}", f"at most {FEW} more")
        assert now <= was + FEW, (early, late)
    for kind in early[0].memory:
        most, least = max(each.memory[kind] for each in early), min(each.memory[kind] for each in late)
        report.say(f"MB of the {kind}, most early and least late", f"{most:.0f}, {least:.0f}", "+10 %")
        assert least <= most * GROWTH, (early, late)
    assert auditor.audit(await auditor.gather(site)) == []


@dataclass(frozen=True, slots=True)
class Look:
    """What is held after an outage, by kind of process; memory in MB."""

    memory: dict[str, float]
    handles: dict[str, int]


async def _outages(site: Site, nemesis: Nemesis, count: int) -> list[Look]:
    """Jobs are asked for while the broker and then the database are gone; all end."""
    found = []
    for _ in range(count):
        asking = asyncio.create_task(ask(site, 2.0, 25.0))
        await nemesis.kill_broker(0.2)
        await nemesis.crash_database(0.2)
        await asking
        assert await site.settled(60), site.last_words()
        memory = {kind: sum(memory_mb(pid) or 0.0 for pid in pids) for kind, pids in _pids(site).items()}
        found.append(Look(memory, await _handles(site)))
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
