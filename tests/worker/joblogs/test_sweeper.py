"""What has come due is queued, what has died is taken back, and nobody living is robbed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine.url import make_url

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.joblogs import actions, maintenance, sweeper
from worker.joblogs.models import JobLog
from worker.joblogs.recorder import Outcome
from worker.joblogs.sweeper import (
    Observations,
    fail_unknown,
    promote_due,
    rescue_lost,
    rescue_orphans,
    rescue_unheld,
    rescue_worker,
)
from worker.process import presence
from worker.process.models import Upkeep, Worker
from worker.process.presence import Beat
from worker.process.pulse import release
from worker.settings import Settings


async def set_column(bench: Bench, job_id: object, **values: object) -> None:
    async with bench.database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == job_id).values(**values))


async def test_due_jobs_are_queued_and_rung_and_others_wait(bench: Bench) -> None:
    due = await bench.enqueue(run_at=utc_now() + timedelta(hours=1))
    later = await bench.enqueue(run_at=utc_now() + timedelta(hours=1))
    await set_column(bench, due.id, run_at=utc_now() - timedelta(seconds=1))
    assert await promote_due(bench.database) == 1
    await bench.database.settle()
    assert [bell.job_id for bell in bench.told[-1].rings] == [due.id]
    assert ((await bench.row(due.id)).status, (await bench.row(later.id)).status) == ("queued", "scheduled")


async def test_a_dead_workers_jobs_are_queued_again_unburnt_under_a_new_epoch(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 1
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 0
    row = await bench.row(claimed.id)
    assert (row.status, row.epoch, row.attempt, row.lost_count, row.lane) == ("queued", 2, 0, 1, "rescue")
    await bench.database.settle()
    assert any(bell.rescue for told in bench.told for bell in told.rings)
    assert [a.outcome for a in await bench.attempts(claimed.id)] == ["lost"]
    assert (await bench.events())[-3:] == ["job.lost", "job.queued", "worker.lost"]


async def test_a_process_that_ended_as_it_was_asked_to_is_not_told_as_lost(bench: Bench) -> None:
    recorder = await bench.recorder()
    await rescue_worker(bench.database, recorder.worker_id, "drained", lost=False)
    await rescue_worker(bench.database, recorder.worker_id, "no sign of life")
    assert "worker.lost" not in await bench.events()


async def test_a_lost_job_that_was_asked_to_stop_is_cancelled(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    async with bench.database.transaction() as session:
        await actions.cancel(session, claimed.id, actor=ADA)
    await rescue_worker(bench.database, recorder.worker_id, "killed")
    assert (await bench.row(claimed.id)).status == "cancelled"


async def test_code_that_outran_its_limit_and_took_its_process_along_has_timed_out(bench: Bench) -> None:
    for retries, status in ((1, "retrying"), (0, "failed")):
        recorder = await bench.recorder()
        claimed = await bench.running(recorder, timeout_s=1.0, max_retries=retries)
        await set_column(bench, claimed.id, started_at=utc_now() - timedelta(seconds=60))
        assert await rescue_worker(bench.database, recorder.worker_id, "a job did not stop") == 1
        row = await bench.row(claimed.id)
        assert (row.status, row.reason, row.lost_count) == (status, "timeout", 0)
        assert "limit of 1 s" in (row.error or "")


def test_a_sweeper_that_stood_still_for_most_of_a_short_lease_declares_nobody_dead() -> None:
    watch, worker = Observations(lease_s=3.0), [(new_id(), 1)]
    assert [watch.stopped(worker, now) for now in (0.0, 0.5, 3.2)] == [[], [], []]


async def test_of_a_dead_process_only_the_jobs_that_its_parent_knows_to_be_overdue_have_timed_out(
    bench: Bench,
) -> None:
    """Its last beat may be older than the deadline: the database was away."""
    recorder = await bench.recorder()
    late, other = [await bench.running(recorder, timeout_s=1.0) for _ in range(2)]
    await release(bench.database, recorder.worker_id, {late.id}, unburnt=False)
    assert (await bench.row(other.id)).status == "running"
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 1
    rows = [await bench.row(claimed.id) for claimed in (late, other)]
    assert [(row.status, row.reason, row.lost_count) for row in rows] == [
        ("retrying", "timeout", 0), ("queued", None, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("found", ["by its worker", "as an orphan"])
async def test_a_job_that_is_found_lost_long_after_its_worker_died_has_not_timed_out(
    bench: Bench, found: str
) -> None:
    """The whole host was without power, or nobody was there to look."""
    recorder = await bench.recorder()
    claimed = await bench.running(recorder, timeout_s=300.0, max_retries=0)
    hours_ago = utc_now() - timedelta(hours=8)
    await set_column(bench, claimed.id, started_at=hours_ago)
    ended = hours_ago + timedelta(seconds=5) if found == "as an orphan" else None
    async with bench.database.transaction() as session:
        values = {"beat_at": hours_ago + timedelta(seconds=3), "ended_at": ended}
        await session.execute(sa.update(Worker).where(Worker.id == recorder.worker_id).values(values))
    if found == "as an orphan":
        assert await rescue_orphans(bench.database) == 1
    else:
        assert await rescue_worker(bench.database, recorder.worker_id, "its process has ended") == 1
    row = await bench.row(claimed.id)
    assert (row.status, row.lost_count, row.lane) == ("queued", 1, "rescue")


async def test_a_finish_between_the_look_and_the_rescue_wins(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "success"))
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 0
    assert (await bench.row(claimed.id)).status == "success"


async def test_running_rows_of_a_worker_that_is_gone_are_orphans(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    assert await rescue_orphans(bench.database) == 0
    async with bench.database.transaction() as session:
        await session.execute(sa.delete(Worker).where(Worker.id == recorder.worker_id))
    assert await rescue_orphans(bench.database) == 1
    assert (await bench.row(claimed.id)).status == "queued"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_sweeper_that_a_lock_keeps_out_takes_nobodys_silence_for_death(bench: Bench) -> None:
    """Whoever blocks its loop in a transaction locks SQLite for all: beats cannot be written, rows can be read."""
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    observations = Observations(lease_s=15)
    assert await rescue_lost(bench.database, observations, 0.0) == 0
    with closing(sqlite3.connect(make_url(bench.database.url).database or "")) as other:
        other.execute("BEGIN IMMEDIATE")
        kept_out = asyncio.create_task(rescue_lost(bench.database, observations, 4.0))
        await asyncio.sleep(0.3)
        assert not kept_out.done()
    assert await kept_out == 0
    assert await rescue_lost(bench.database, observations, 15.0) == 0
    assert (await bench.row(claimed.id)).status == "running"


async def test_a_beat_that_stands_still_for_the_lease_is_a_death(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    observations = Observations(lease_s=15)
    for now in range(15):
        assert await rescue_lost(bench.database, observations, float(now)) == 0
    assert await rescue_lost(bench.database, observations, 15.0) == 1
    assert (await bench.row(claimed.id)).lane == "rescue"


async def test_a_worker_that_beats_while_others_are_buried_is_not_dead(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them was silent when the sweeper looked; to bury the first takes as long as it takes."""
    recorders = [await bench.recorder() for _ in range(3)]
    jobs = {recorder.worker_id: await bench.running(recorder) for recorder in recorders}
    alive, bury = recorders[1].worker_id, sweeper.rescue_worker

    async def late(database: Database, worker_id: UUID, *args: Any, **options: Any) -> int:
        if worker_id == alive:
            await presence.beat(bench.database, [Beat(alive, 1, [], 1, None)])
        return await bury(database, worker_id, *args, **options)

    monkeypatch.setattr(sweeper, "rescue_worker", late)
    observations = Observations(lease_s=15)
    for now in range(15):
        assert await rescue_lost(bench.database, observations, float(now)) == 0
    assert await rescue_lost(bench.database, observations, 15.0) == 2
    async with bench.database.read() as connection:
        living = (await connection.scalars(sa.select(Worker.id).where(Worker.ended_at.is_(None)))).all()
    assert living == [alive]
    assert (await bench.row(jobs[alive].id)).status == "running"
    assert (await bench.events()).count("worker.lost") == 2


async def test_a_process_that_is_known_to_be_gone_is_dead_whatever_it_beat_last(bench: Bench) -> None:
    recorder = await bench.recorder()
    await bench.running(recorder)
    await presence.beat(bench.database, [Beat(recorder.worker_id, 5, [], 1, None)])
    assert await rescue_worker(bench.database, recorder.worker_id, "killed") == 1


async def test_jobs_that_nobody_knew_for_an_hour_fail_and_newer_ones_wait(bench: Bench) -> None:
    await bench.recorder(names=("add",), started_at=utc_now() - timedelta(minutes=10))
    old, new = await bench.enqueue("mail"), await bench.enqueue("mail")
    await set_column(bench, old.id, run_at=utc_now() - timedelta(hours=2))
    assert await fail_unknown(bench.database) == 1
    row = await bench.row(old.id)
    assert (row.status, row.reason) == ("failed", "unknown_job")
    assert "'mail'" in (row.error or "")
    assert (await bench.row(new.id)).status == "queued"


async def test_what_was_accepted_while_no_worker_lived_waits_for_one_that_has_lived_ten_minutes(
    bench: Bench,
) -> None:
    """A clerk looks before the first worker has read its job modules, and on one host before all others."""
    job = await bench.enqueue("mail")
    now = job.run_at + timedelta(hours=9)
    assert await fail_unknown(bench.database, now) == 0, "no worker lives"
    await worker(bench, started_at=now - timedelta(minutes=9), beat_at=now)
    assert await fail_unknown(bench.database, now) == 0, "others may still come"
    assert await fail_unknown(bench.database, now + timedelta(minutes=1)) == 1


@pytest.mark.parametrize(
    "columns",
    [{"kind": "clerk"}, {"queues": ["default"]}, {"beat_at": timedelta(hours=1)}, {"ended_at": timedelta(0)}],
    ids=["a clerk", "a worker of other queues", "one whose host is gone", "one that has ended"],
)
async def test_only_a_living_worker_that_could_have_taken_it_says_that_nobody_knows_a_job(
    bench: Bench, columns: dict[str, Any]
) -> None:
    job = await bench.enqueue("mail")
    now = job.run_at + timedelta(hours=9)
    ago = {name: now - value for name, value in columns.items() if isinstance(value, timedelta)}
    await worker(bench, **{"started_at": now - timedelta(hours=5), "beat_at": now, **columns, **ago})
    assert await fail_unknown(bench.database, now) == 0
    await worker(bench, started_at=now - timedelta(hours=5), beat_at=now)
    assert await fail_unknown(bench.database, now) == 1


async def worker(bench: Bench, **columns: Any) -> None:
    """A worker's row; it knows `add` and takes from both queues."""
    row = {"kind": "worker", "jobs": ["add"], "queues": ["default", "mail"], **columns}
    async with bench.database.transaction() as session:
        session.add(Worker(id=new_id(), host="here", pid=1, **row))


async def test_a_known_job_waits_however_long(bench: Bench) -> None:
    await bench.recorder(names=("mail",), started_at=utc_now() - timedelta(hours=9))
    old = await bench.enqueue("mail")
    await set_column(bench, old.id, run_at=utc_now() - timedelta(hours=9))
    assert await fail_unknown(bench.database) == 0


async def test_retention_purges_old_ends_and_leaves_live_jobs(bench: Bench) -> None:
    recorder = await bench.recorder()
    ended, live = await bench.running(recorder), await bench.enqueue()
    await recorder.finish(Outcome(ended, "failed", error="x"))
    for job_id in (ended.id, live.id):
        await set_column(bench, job_id, enqueued_at=utc_now() - timedelta(days=90))
    async with bench.database.transaction() as session:
        await session.execute(sa.text("DELETE FROM job_counters"))
    settings = Settings(database_url="", secret_key="", retention_days=30)
    assert (await maintenance.purge(bench.database, settings))["job_logs"] == 0
    async with bench.database.transaction() as session:
        old = utc_now() - timedelta(days=31)
        await session.execute(sa.update(JobLog).where(JobLog.id == ended.id).values(completed_at=old))
    assert (await maintenance.purge(bench.database, settings))["job_logs"] == 1
    async with bench.database.read() as connection:
        kept = (await connection.execute(sa.select(Upkeep.__table__).where(Upkeep.what == "job_logs"))).one()
    assert kept.removed == 1
    assert utc_now() - kept.last_run_at < timedelta(minutes=1)
    assert (await bench.row(live.id)).status == "queued"


workers = st.integers(0, 4)


@given(st.lists(st.dictionaries(workers, st.integers(0, 3), max_size=5), min_size=1, max_size=40))
def test_no_beat_that_moved_within_the_lease_is_called_dead(sweeps: list[dict[int, int]]) -> None:
    ids = {number: new_id() for number in range(5)}
    observations = Observations(lease_s=5)
    moved: dict[int, float] = {}
    last: dict[int, int] = {}
    for now, beats in enumerate(sweeps):
        for gone in set(last) - set(beats):
            del last[gone]
        for worker, beat in beats.items():
            if last.get(worker) != beat:
                last[worker], moved[worker] = beat, float(now)
        dead = observations.stopped([(ids[worker], beat) for worker, beat in beats.items()], float(now))
        assert all(now - moved[worker] >= 5 for worker in beats if ids[worker] in dead)


def test_after_a_gap_of_its_own_a_sweeper_watches_anew() -> None:
    observations, worker = Observations(lease_s=15), new_id()
    for now in (0.0, 1.0, 2.0):
        assert observations.stopped([(worker, 7)], now) == []
    assert observations.stopped([(worker, 7)], 60.0) == []  # the database was away: nobody could beat
    assert observations.stopped([(worker, 7)], 61.0) == []


async def test_a_running_job_that_its_worker_does_not_hold_is_taken_back(bench: Bench) -> None:
    """The claim's answer got lost, and no slot became free to adopt it."""
    recorder = await bench.recorder()
    lost, kept, fresh = [await bench.running(recorder) for _ in range(3)]
    long_ago = utc_now() - timedelta(seconds=30)
    for claimed in (lost, kept):
        await set_column(bench, claimed.id, started_at=long_ago)
    held = [[str(kept.id), kept.epoch], [str(lost.id), lost.epoch - 1]]

    await presence.beat(bench.database, [Beat(recorder.worker_id, 2, held, 1, None, held_age_s=25.0)])
    assert await rescue_unheld(bench.database) == 0, (
        "a list from before the adoption could be made says nothing"
    )
    await presence.beat(bench.database, [Beat(recorder.worker_id, 3, held, 1, None)])
    assert await rescue_unheld(bench.database) == 1
    assert await rescue_unheld(bench.database) == 0
    rows = [await bench.row(claimed.id) for claimed in (lost, kept, fresh)]
    assert [row.status for row in rows] == ["queued", "running", "running"]
    assert (rows[0].epoch, rows[0].attempt, rows[0].lost_count) == (2, 0, 1)
