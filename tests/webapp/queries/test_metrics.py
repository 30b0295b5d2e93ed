"""What /metrics says is what plain arithmetic over the rows says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from tests.webapp.rows import Rows
from webapp.queries.metrics import BUCKETS_S, WINDOW, figures
from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.events.models import OutboxRow
from worker.jobs import actions

STATUSES = ("scheduled", "queued", "running", "retrying", "success", "failed", "cancelled")
ADA = Actor("ada", role="operator")


def mixed(rows: Rows, count: int, seed: int) -> list[dict[str, Any]]:
    """Jobs of every status, some of them ended within the window and some long before; some failures are resolved."""
    draw = random.Random(seed)
    jobs = []
    for _ in range(count):
        status = draw.choice(STATUSES)
        job = rows.job(
            draw.choice(("add", "send_email")), status, queue=draw.choice(("default", "mail", "video"))
        )
        if job["completed_at"] is not None:
            job["completed_at"] = utc_now() - timedelta(seconds=draw.choice((1, 60, 200, 4_000)))
            job["started_at"] = job["completed_at"] - timedelta(seconds=draw.uniform(0.001, 400))
            job["run_at"] = job["started_at"] - timedelta(seconds=draw.uniform(0.001, 100))
        if status == "failed":
            job["resolved_at"] = draw.choice((None, utc_now()))
        jobs.append(job)
    return jobs


def by_hand(
    jobs: list[dict[str, Any]], length: Callable[[dict[str, Any]], timedelta]
) -> dict[str, list[int]]:
    """Cumulated counts by queue, of what ended within the window."""
    found: dict[str, list[int]] = {}
    for job in jobs:
        if job["completed_at"] is not None and job["completed_at"] > utc_now() - WINDOW:
            at_most = found.setdefault(job["queue"], [0] * len(BUCKETS_S))
            for place, bound in enumerate(BUCKETS_S):
                at_most[place] += length(job).total_seconds() <= bound
    return found


async def test_the_figures_are_what_the_rows_say(database: Database, rows: Rows) -> None:
    jobs = mixed(rows, 120, seed=20261125)
    await rows.add(*jobs)
    async with database.read() as connection:
        found = await figures(connection)
    counted = Counter((job["job_name"], job["queue"], job["status"]) for job in jobs)
    assert {key: n for key, n in found.jobs.items() if n} == counted
    waiting = Counter(job["queue"] for job in jobs if job["status"] == "queued")
    assert {queue: n for queue, n in found.depths.items() if n} == waiting
    oldest = {
        queue: min(job["run_at"] for job in jobs if job["queue"] == queue and job["status"] == "queued")
        for queue in waiting
    }
    assert found.ages_s.keys() == oldest.keys()
    for queue, at in oldest.items():
        assert 0 <= (utc_now() - at).total_seconds() - found.ages_s[queue] < 60
    unresolved = [job for job in jobs if job["status"] == "failed" and job["resolved_at"] is None]
    assert found.dead_letters == Counter(job["job_name"] for job in unresolved)
    for measured, length in (
        (found.waits, lambda job: job["started_at"] - job["run_at"]),
        (found.runs, lambda job: job["completed_at"] - job["started_at"]),
    ):
        assert {queue: list(sums.at_most) for queue, sums in measured.items()} == by_hand(jobs, length)


async def test_controls_and_the_outbox_are_told(database: Database, rows: Rows) -> None:
    await rows.offer("add")
    old, new = utc_now() - timedelta(seconds=90), utc_now()
    async with database.transaction() as session:
        await actions.pause_queue(session, "mail", actor=ADA)
        await actions.set_queue_limit(session, "video", 7, actor=ADA)
        await actions.pause_job(session, "add", actor=ADA)
        await session.execute(sa.delete(OutboxRow))
    async with database.transaction() as session:
        for at, published in ((old, None), (new, None), (old - timedelta(hours=1), new)):
            row = {"id": new_id(), "events": [], "created_at": at, "published_at": published}
            await session.execute(sa.insert(OutboxRow).values(row))
        await session.execute(sa.delete(OutboxRow).where(OutboxRow.created_at > new))
    async with database.read() as connection:
        found = await figures(connection)
    assert (found.paused, found.limits, found.paused_jobs) == (["mail"], {"video": 7.0}, ["add"])
    assert found.unpublished == 2
    assert 90 <= found.outbox_lag_s < 150
