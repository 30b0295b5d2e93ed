"""C3, C4, C12 and C13 at the broker: gone, restarted, wiped, full, or there without a word. Jobs are accepted and run all the same."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import auditor, figures
from tests.chaos.asking import Asked, ask, in_full
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from tests.servers.nats import NatsServer

pytestmark = pytest.mark.timeout(300)


@on("postgresql")
async def test_c3_enqueuing_and_running_go_on_while_the_broker_is_gone(
    own_site: Any, full: bool, report: Report
) -> None:
    site = await _served(own_site)
    gone_s, per_s = (20.0, 50.0) if full else (5.0, 20.0)
    await ask(site, 1.0, 5.0)  # what a first request prepares is not what is looked at here
    usual = await ask(site, 3.0, per_s)
    await _all_ended(site, usual)
    before = _ended(site)
    await site.do(site.nats.kill)
    asked = await ask(site, gone_s, per_s)
    meanwhile = _ended(site) - before
    await site.do(site.nats.start)
    assert set(asked.statuses) == {202}, str(asked)
    assert asked.unanswered == 0
    assert meanwhile > 0, "no job ran while the broker was gone"
    evidence = await _all_ended(site, asked)
    waited = figures.quantile(_waits_s(evidence, asked), 0.95)
    report.say(f"requests during {gone_s:g} s without a broker", str(asked), "all 202")
    report.say(
        "enqueue p99 without and with a broker", f"{asked.p99_ms:.0f} ms, {usual.p99_ms:.0f} ms", "<= 50 ms"
    )
    report.say("jobs that ran meanwhile", meanwhile)
    report.say("accepted -> started without a broker, p95", figures.seconds(waited), "<= 2 s")


@on("sqlite")
async def test_c4_a_broker_that_was_restarted_or_wiped_is_consumed_from_again(
    own_site: Any, report: Report
) -> None:
    site = await _served(own_site)
    for fault in ("restarted", "wiped"):
        await site.do(site.nats.kill)
        asked = await ask(site, 1.0, 10.0)
        if fault == "wiped":
            shutil.rmtree(site.nats.folder / "store")
        await site.do(site.nats.start)
        began = time.monotonic()
        again = await ask(site, 1.0, 10.0)
        assert set(asked.statuses) | set(again.statuses) == {202}
        await site.until(lambda: _lanes_are_there(site), 30, "the stream and its consumers")
        report.say(
            f"{fault} -> stream and consumers there", figures.seconds(time.monotonic() - began), "<= 2 s"
        )
        await _all_ended(site, asked, again)
        more = await ask(site, 0.5, 10.0)
        await _all_ended(site, more)
        await site.until(lambda: _every_bell_heard(site), 60, "every doorbell to be heard")


@on("postgresql")
async def test_c13_a_broker_that_says_nothing_is_found_out(own_site: Any, report: Report) -> None:
    site = await _served(own_site)
    assert site.nats.process is not None
    os.kill(site.nats.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        asked = await ask(site, 3.0, 10.0)

        async def found() -> bool:
            return not site.engine.doorbells.connected

        await site.until(found, 30, "the silent broker to be found out")
        found_s = time.monotonic() - began
        await _all_ended(site, asked)
    finally:
        os.kill(site.nats.process.pid, signal.SIGCONT)
    assert set(asked.statuses) == {202}, str(asked)
    report.say("a silent broker is found out after", figures.seconds(found_s), "<= 7 s")
    report.say("enqueue p99 meanwhile", f"{asked.p99_ms:.0f} ms", "<= 50 ms")
    again = await ask(site, 0.5, 10.0)
    await _all_ended(site, again)


class SmallNats(NatsServer):
    """Its store holds a few hundred doorbells, and then refuses (error 10023)."""

    def _config(self) -> dict[str, object]:
        config = super()._config()
        config["jetstream"]["max_file"] = 32 * 1024  # type: ignore[index]
        return config


@in_full
async def test_c12_a_full_broker_loses_nothing_that_was_accepted(tmp_path: Path, report: Report) -> None:
    nats = SmallNats()
    nats.start()
    try:
        async with Site(tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'desk.db'}", nats) as site:
            host = site.host()
            await site.ready(workers=1)
            site.forget(host)
            await site.do(host.stop)  # the jobs are known, and nobody takes them
            jobs = [await site.engine.enqueue("work", {"ms": 1}) for _ in range(800)]
            await site.engine.database.settle()
            bells = (await site.engine.doorbells.stats())["stream"]["messages"]
            assert bells < len(jobs), "the broker was not full"
            site.host()
            assert await site.settled(120), site.last_words()
            evidence = await auditor.gather(site)
            evidence.accepted = [str(job) for job in jobs]
            assert auditor.audit(evidence) == []
            report.say("jobs of 800 whose doorbell a full broker refused", 800 - bells)
            report.say("of them lost", figures.lost(evidence), 0)
    finally:
        nats.close()


@in_full
@on("sqlite")
async def test_c12_a_full_queue_refuses_and_keeps_what_it_accepted(own_site: Any, report: Report) -> None:
    site = await _served(own_site, M_QUEUE_MAX_DEPTH="20")
    site.forget(host := site.hosts[0])
    await site.do(host.stop)
    asked = await ask(site, 2.0, 40.0)
    site.host()
    evidence = await _all_ended(site, asked)
    assert set(asked.statuses) == {202, 429}, str(asked)
    assert len(evidence.jobs) == len(asked.accepted) >= 20
    report.say("a queue that holds 20, asked 80 times", str(asked), "202 and 429")


async def _served(make: Any, **environ: str) -> Site:
    site: Site = await make(**environ)
    site.host()
    await site.ready(workers=1, clerks=1)
    await site.web()
    return site


async def _all_ended(site: Site, *asked: Asked) -> auditor.Evidence:
    assert await site.settled(90), site.last_words()
    evidence = await auditor.gather(site)
    evidence.accepted = [job for each in asked for job in each.accepted]
    assert auditor.audit(evidence) == []
    return evidence


def _ended(site: Site) -> int:
    return sum(line.phase == "end" for line in site.lines())


def _waits_s(evidence: auditor.Evidence, asked: Asked) -> list[float]:
    rows = [evidence.jobs[job] for job in asked.accepted]
    return [(row.started_at - row.enqueued_at).total_seconds() for row in rows]


async def _lanes_are_there(site: Site) -> bool:
    stats = await site.engine.doorbells.stats()
    return "stream" in stats and len(stats["consumers"]) >= 4


async def _every_bell_heard(site: Site) -> bool:
    return bool((await site.engine.doorbells.stats()).get("stream", {}).get("messages") == 0)
