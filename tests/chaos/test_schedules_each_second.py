"""C7: schedules that are due each second, three workers, one of them killed every three seconds; a ledger counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from tests.chaos.asking import in_full
from tests.chaos.report import Report
from tests.chaos.site import Site, on
from worker.accounts.actor import ENGINE
from worker.db.base import utc_now
from worker.schedules import actions
from worker.schedules.models import ScheduledJob, ScheduleFire

pytestmark = pytest.mark.timeout(600)

HOSTS = 3
KILL_EVERY_S = 3.0
SECOND = timedelta(seconds=1)


@in_full  # the short set has the smaller one of test_schedules.py
@on("postgresql")
async def test_c7_schedules_of_each_second_while_workers_are_killed(
    site, seed: int, full: bool, report: Report
) -> None:
    desk: Site = await site()
    schedules, lasting_s = (40, 60.0) if full else (10, 12.0)
    for _ in range(HOSTS):
        desk.host(processes=1, concurrency=20)
    await desk.ready(workers=HOSTS, clerks=HOSTS)
    made = await make(desk, schedules)
    begun = time.monotonic()
    killed = await kill_children(desk, random.Random(seed), until=begun + lasting_s)
    await switch_off(desk, made)
    assert await desk.settled(120), desk.last_words()
    fires = await desk.rows(ScheduleFire)
    report.say("schedules, workers, seconds", f"{schedules}, {HOSTS}, {lasting_s:g}")
    report.say("children killed", killed)
    report.say("instants", len(fires))
    late = sorted((fire.created_at - fire.fire_at).total_seconds() for fire in fires)
    report.say("late, p50 and longest", f"{late[len(late) // 2]:.2f} s, {late[-1]:.2f} s")
    missing, doubled = gaps(made, fires), doubles(desk, fires)
    report.say("instants missed", len(missing), 0)
    report.say("instants run by two jobs, or by none", len(doubled), 0)
    assert killed >= lasting_s / KILL_EVERY_S / 2
    assert missing == []
    assert doubled == []
    assert {fire.outcome for fire in fires} == {"enqueued"}


async def make(desk: Site, count: int) -> list[UUID]:
    async with desk.engine.database.transaction() as session:
        return [
            (
                await actions.create(
                    session,
                    {
                        "name": f"each second {number}", "function": "work", "args": {"ms": 20},
                        "cron_expression": "* * * * * *", "missed": "all", "overlap": "allow",
                    },
                    actor=ENGINE,
                )
            ).id
            for number in range(count)
        ]  # fmt: skip


async def switch_off(desk: Site, made: list[UUID]) -> None:
    """Only once every instant up to now is decided: what is cut off here was never due."""
    now = utc_now()

    async def caught_up() -> bool:
        return not await desk.rows(ScheduledJob, ScheduledJob.next_fire_at <= now)

    await desk.until(caught_up, 60, "the clocks to catch up")
    async with desk.engine.database.transaction() as session:
        for schedule_id in made:
            await actions.disable(session, schedule_id, actor=ENGINE)


async def kill_children(desk: Site, dice: random.Random, until: float) -> int:
    """The worker child and the clerk of one host, every three seconds."""
    killed = 0
    while time.monotonic() < until:
        await asyncio.sleep(min(KILL_EVERY_S, max(0.0, until - time.monotonic())))
        host = dice.choice(desk.hosts)
        for kind in ("worker", "clerk"):
            for pid in desk.children(kind, host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    return killed


def gaps(made: list[UUID], fires: list[ScheduleFire]) -> list[tuple[UUID, datetime]]:
    """Seconds of a schedule between its first and its last that no fire stands for."""
    found = []
    for schedule_id in made:
        told = {fire.fire_at for fire in fires if fire.scheduled_job_id == schedule_id}
        assert told, "a schedule never fired"
        at = min(told)
        while at < max(told):
            if at not in told:
                found.append((schedule_id, at))
            at += SECOND
    return found


def doubles(desk: Site, fires: list[ScheduleFire]) -> list[str]:
    """By the ledger: each instant's job ran, no job ran that is no instant's, and no two are of the same."""
    wanted = [str(fire.job_id) for fire in fires]
    ran = {line.job for line in desk.lines() if line.phase == "end"}
    started = {line.job for line in desk.lines()}
    twice = {job for job in wanted if wanted.count(job) > 1} if len(set(wanted)) != len(wanted) else set()
    return sorted({*(set(wanted) - ran), *(started - set(wanted)), *twice})
