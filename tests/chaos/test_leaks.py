"""I11: what lived through outages holds no more afterwards than before: memory, descriptors, connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.url import make_url

from tests.chaos import auditor
from tests.chaos.asking import ask
from tests.chaos.nemesis import Nemesis
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from worker.process.identity import memory_mb

pytestmark = pytest.mark.timeout(400)
FEW = 1
"""Descriptors that come and go by the moment; the most of early looks counts, and the least of late ones."""
POOL = {"postgresql": 10, "sqlite": 20}
"""Connections to the database that a process may keep when it has nothing to do; how many it does is luck.

Of SQLite as many files as were ever open at once: closing one would drop the locks of the process's others, so SQLite keeps its
descriptor for whoever opens the file next (sqlite3's os_unix.c, "posix advisory locking").
"""
GROWTH = 1.10
"""What the least of late figures may be of the most of early ones: an allocator's peaks come and go, a leak stays."""
DATABASE = "the database"
WARM, LOOKS = 8, 8
SHORT_LOOKS = 2
LOOKS_AGAIN = 5


@on("postgresql")
async def test_what_lives_through_outages_holds_what_it_held_before(
    own_site: Any, seed: int, full: bool, report: Report
) -> None:
    site: Site = await own_site()
    site.host()
    await site.ready(workers=1, clerks=1)
    await site.web()
    nemesis = Nemesis(site, seed)
    await _outages(site, nemesis, WARM if full else 1)
    early = await _outages(site, nemesis, LOOKS if full else SHORT_LOOKS)
    later = await _outages(site, nemesis, LOOKS if full else SHORT_LOOKS)
    late = later[len(later) // 2 :]  # some outages after the early ones: what leaks at each has added up
    for _ in range(LOOKS_AGAIN):
        if not _holds_more(early, late):
            break
        late.append(await _look(site))
    for name in early[0].handles:
        was, now = max(each.handles[name] for each in early), min(each.handles[name] for each in late)
        report.say(
            f"descriptors of the {name}, most early and least late", f"{was}, {now}", f"at most {FEW} more"
        )
        assert now <= was + FEW, (early, late)
    for kind in early[0].connections:
        most = max(each.connections[kind] for each in late)
        report.say(
            f"connections of the {kind} to the database, most late",
            str(most),
            f"at most {POOL[site.dialect]}",
        )
        assert most <= POOL[site.dialect], (early, late)
    assert min(each.of_others for each in late) <= FEW, (early, late)
    for kind in early[0].memory:
        most, least = max(each.memory[kind] for each in early), min(each.memory[kind] for each in late)
        report.say(f"MB of the {kind}, most early and least late", f"{most:.0f}, {least:.0f}", "+10 %")
        assert least <= most * GROWTH, (early, late)
    assert auditor.audit(await auditor.gather(site)) == []


def _holds_more(early: list[Look], late: list[Look]) -> bool:
    """Whether it looks like a leak; what is held for a moment only is gone at one of the next looks."""
    return min(each.of_others for each in late) > FEW or any(
        min(getattr(each, of)[kind] for each in late) > bound(max(getattr(each, of)[kind] for each in early))
        for of, bound in (("handles", lambda most: most + FEW), ("memory", lambda most: most * GROWTH))
        for kind in getattr(early[0], of)
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What is held after an outage, by kind of process: MB, connections to the database, and all other descriptors.

    `of_others` counts what the database thinks is connected and none of the processes holds.
    """

    memory: dict[str, float]
    connections: dict[str, int]
    handles: dict[str, int]
    of_others: int


async def _outages(site: Site, nemesis: Nemesis, count: int) -> list[Look]:
    """Jobs are asked for while the broker and then the database are gone; all end."""
    found = []
    for _ in range(count):
        asking = asyncio.create_task(ask(site, 2.0, 25.0))
        await nemesis.kill_broker(0.2)
        await (nemesis.crash_database(0.2) if site.postgres else nemesis.lock_database(0.5))
        await asking
        assert await site.settled(60), site.last_words()
        found.append(await _look(site))
    return found


async def _look(site: Site) -> Look:
    """When nothing is left to do."""
    await asyncio.sleep(2.0)
    held = {kind: [link for pid in pids for link in _held(pid, site)] for kind, pids in _pids(site).items()}
    connections = {kind: links.count(DATABASE) for kind, links in held.items()}
    return Look(
        memory={kind: sum(memory_mb(pid) or 0.0 for pid in pids) for kind, pids in _pids(site).items()},
        connections=connections,
        handles={kind: sum(link != DATABASE for link in links) for kind, links in held.items()},
        of_others=await _told(site) - sum(connections.values()) - _held(os.getpid(), site).count(DATABASE)
        if site.postgres
        else 0,
    )


async def _told(site: Site) -> int:
    """How many connections PostgreSQL counts."""
    async with site.engine.database.read() as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        return int(await connection.scalar(sa.text(statement)) or 0)


def _held(pid: int, site: Site) -> list[str]:
    """What a process's descriptors lead to; each connection to the database as one `DATABASE`, SQLite's other files left out."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(path.readlink()))
    if site.postgres:
        sockets = _sockets_to(pid, site.postgres.port)
        return [DATABASE if link in sockets else link for link in links]
    file = make_url(site.engine.settings.database_url).database
    beside = (f"{file}-wal", f"{file}-shm")
    return [DATABASE if link == file else link for link in links if link not in beside]


def _sockets_to(pid: int, port: int) -> set[str]:
    """A process's TCP connections to a port of this machine (proc(5), /proc/pid/net/tcp)."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}")}


def _pids(site: Site) -> dict[str, list[int]]:
    own = {"supervisor": [site.hosts[0].pid], "web": [site.webs[0].pid]}
    return own | {kind: site.children(kind) for kind in ("worker", "clerk")}
