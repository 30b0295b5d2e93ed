"""C3, C4 and C13 with Redis as the broker: gone, back and empty, there without a word, while a worker child is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos import auditor, figures
from tests.chaos.asking import Asked, ask, in_full
from tests.chaos.report import Report
from tests.chaos.site import Site
from tests.servers.valkey import ValkeyServer

pytestmark = pytest.mark.timeout(300)


@in_full
async def test_redis_that_dies_comes_back_empty_or_says_nothing_loses_no_job(
    tmp_path: Path, own_valkey_server: ValkeyServer, report: Report, seed: int
) -> None:
    choose = random.Random(seed)
    async with Site(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'desk.db'}", own_valkey_server) as site:
        site.host(processes=2)
        await site.ready(workers=2, clerks=1)
        await site.web()
        await ask(site, 1.0, 5.0)  # what a first request prepares is not what is looked at here
        asked = [usual := await ask(site, 3.0, 20.0)]

        await site.do(own_valkey_server.kill)
        asked.append(gone := await ask(site, 5.0, 20.0))
        os.kill(choose.choice(site.children()), signal.SIGKILL)
        assert gone.unanswered == 0
        await site.do(own_valkey_server.start)
        began = time.monotonic()
        await site.until(lambda: _lanes_are_there(site), 30, "the streams and their groups")
        report.say(
            "Redis back and empty -> streams and groups there",
            figures.seconds(time.monotonic() - began),
            "<= 2 s",
        )
        asked.append(await ask(site, 1.0, 10.0))

        assert own_valkey_server.process is not None
        os.kill(own_valkey_server.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            asked.append(silent := await ask(site, 3.0, 10.0))
            await site.until(lambda: _found_out(site), 30, "the silent Redis to be found out")
            report.say(
                "a silent Redis is found out after", figures.seconds(time.monotonic() - began), "<= 7 s"
            )
        finally:
            os.kill(own_valkey_server.process.pid, signal.SIGCONT)
        asked.append(await ask(site, 1.0, 10.0))

        assert all(set(each.statuses) == {202} for each in asked), [str(each) for each in asked]
        assert await site.settled(90), site.last_words()
        evidence = await auditor.gather(site)
        evidence.accepted = [job for each in asked for job in each.accepted]
        assert auditor.audit(evidence) == []
        await site.until(lambda: _every_bell_heard(site), 60, "every doorbell to be heard")
        report.say("enqueue p99 without Redis, with a silent one", _p99(gone, silent), "<= 50 ms")
        report.say("enqueue p99 with Redis, the same moment", _p99(usual))
        report.say("jobs lost of those accepted", f"{figures.lost(evidence)} of {len(evidence.accepted)}", 0)


async def _lanes_are_there(site: Site) -> bool:
    return len((await site.engine.doorbells.stats())["consumers"]) >= 4


async def _found_out(site: Site) -> bool:
    return not site.engine.doorbells.connected


async def _every_bell_heard(site: Site) -> bool:
    return bool((await site.engine.doorbells.stats()).get("stream", {}).get("messages") == 0)


def _p99(*asked: Asked) -> str:
    return ", ".join(f"{each.p99_ms:.0f} ms" for each in asked)
