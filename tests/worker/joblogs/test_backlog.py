"""A queue that falls behind is told of once, whoever looks, and once more when it has caught up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import utc_now
from worker.events.models import OutboxRow
from worker.joblogs import actions, backlog
from worker.joblogs.models import JobLog
from worker.jobs import actions as controls
from worker.settings import Settings

SETTINGS = Settings("sqlite://", "x" * 32, alert_backlog_age_s=60, alert_backlog_depth=10)


async def told(bench: Bench) -> list[dict[str, Any]]:
    async with bench.database.session() as session:
        rows = await session.scalars(sa.select(OutboxRow).order_by(OutboxRow.id))
        events = [event for row in rows for event in row.events]
    return [e for e in events if e["event_type"] in ("queue.backlog", "queue.caught_up")]


async def age(bench: Bench, seconds: float) -> None:
    async with bench.database.transaction() as session:
        await session.execute(sa.update(JobLog).values(run_at=utc_now() - timedelta(seconds=seconds)))


async def test_a_queue_is_told_of_once_when_it_falls_behind_and_once_when_it_has_caught_up(
    bench: Bench,
) -> None:
    job = await bench.enqueue()
    assert await backlog.watch(bench.database, SETTINGS) == 0
    await age(bench, 61)
    assert [await backlog.watch(bench.database, SETTINGS) for _ in range(3)] == [1, 0, 0]
    [event] = await told(bench)
    data = event["data"]
    assert (event["event_type"], data["queue"], data["depth"]) == ("queue.backlog", "default", 1)
    assert data["oldest_age_s"] >= 61
    assert (data["age_limit_s"], data["depth_limit"]) == (60, 10)
    async with bench.database.transaction() as session:
        await actions.cancel(session, job.id, actor=ADA)
    assert [await backlog.watch(bench.database, SETTINGS) for _ in range(2)] == [1, 0]
    assert [e["event_type"] for e in await told(bench)] == ["queue.backlog", "queue.caught_up"]


async def test_a_long_queue_is_behind_however_young_it_is(bench: Bench) -> None:
    for _ in range(10):
        await bench.enqueue("mail")
    await backlog.watch(bench.database, SETTINGS)
    assert [(e["data"]["queue"], e["data"]["depth"]) for e in await told(bench)] == [("mail", 10)]


async def test_a_paused_queue_is_left_alone(bench: Bench) -> None:
    await bench.enqueue()
    await age(bench, 3600)
    async with bench.database.transaction() as session:
        await controls.pause_queue(session, "default", actor=ADA)
    assert await backlog.watch(bench.database, SETTINGS) == 0


@pytest.mark.parametrize(
    ("age_s", "depth", "since", "behind"),
    [
        (59, 9, False, False),
        (60, 1, False, True),
        (0, 10, False, True),
        (48, 1, True, True),
        (47, 7, True, False),
        (0, 8, True, True),
    ],
)
def test_a_queue_at_the_edge_is_not_told_again_and_again(
    age_s: float, depth: int, since: bool, behind: bool
) -> None:
    facts = {"oldest_age_s": age_s, "depth": depth}
    assert backlog.is_behind(facts, SETTINGS, since=since) == behind
    loose = replace(SETTINGS, alert_backlog_age_s=600, alert_backlog_depth=1000)
    assert not backlog.is_behind(facts, loose, since=since)
