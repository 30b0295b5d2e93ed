"""A finish is written by the worker that holds the job at that epoch, and by no other."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.worker.joblogs.conftest import ADA, Bench, goes_away_after
from worker.db import half_open
from worker.db.base import utc_now
from worker.joblogs import actions, finishes
from worker.joblogs.claims import Claimed
from worker.joblogs.counters import by_status, fold, recount
from worker.joblogs.finishes import write_outcomes
from worker.joblogs.models import JobLog
from worker.joblogs.recorder import Outcome, Recorder
from worker.joblogs.sweeper import promote_due, rescue_worker
from worker.jobs.models import JobCatalogue
from worker.process import pulse
from worker.process.models import Worker


async def test_a_success_keeps_exact_numbers_and_clears_the_error(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    assert await recorder.finish(
        Outcome(claimed, "success", result='{"sum":1000000000000000000000000000000000001}')
    )
    row = await bench.row(claimed.id)
    assert (row.status, row.result, row.error) == ("success", {"sum": 10**36 + 1}, None)
    assert row.completed_at is not None
    assert await bench.attempts(claimed.id) == []


@pytest.mark.parametrize("result", ["5", '"text"', "null", "[]", "true", "1.5", '"5"'])
async def test_any_json_value_can_be_a_result(bench: Bench, result: str) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "success", result=result))
    expected = {"5": 5, '"text"': "text", "null": None, "[]": [], "true": True, "1.5": 1.5, '"5"': "5"}[
        result
    ]
    found = (await bench.row(claimed.id)).result
    assert (found, type(found)) == (expected, type(expected))


async def test_a_failure_keeps_its_error_and_its_attempt(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(
        Outcome(claimed, "failed", error="ValueError: no", traceback="trace", reason="error")
    )
    row = await bench.row(claimed.id)
    assert (row.status, row.error, row.traceback, row.reason) == (
        "failed",
        "ValueError: no",
        "trace",
        "error",
    )
    assert row.error_fingerprint
    [attempt] = await bench.attempts(claimed.id)
    assert (attempt.outcome, attempt.error, attempt.worker_id) == (
        "failed",
        "ValueError: no",
        recorder.worker_id,
    )


async def test_a_retry_waits_for_its_time_and_keeps_the_first_attempts_error(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "retrying", error="ValueError: first", retry_after_s=60))
    row = await bench.row(claimed.id)
    assert (row.status, row.attempt, row.completed_at) == ("retrying", 1, None)
    assert row.run_at > row.enqueued_at
    [attempt] = await bench.attempts(claimed.id)
    assert (attempt.outcome, attempt.error) == ("retrying", "ValueError: first")
    assert attempt.retry_at == row.run_at


async def test_a_result_of_an_older_epoch_changes_nothing_and_is_counted(bench: Bench) -> None:
    old, new = await bench.recorder(), await bench.recorder()
    first = await bench.running(old)
    assert await rescue_worker(bench.database, old.worker_id, "test") == 1
    second = await new.claim(first.id)
    assert second is not None
    assert second.epoch == first.epoch + 2  # the rescue and the claim
    before = await bench.row(first.id)
    for status in ("success", "failed", "retrying", "queued", "cancelled", "lost"):
        assert not await old.finish(Outcome(first, status, error="late"))  # type: ignore[arg-type]
    after = await bench.row(first.id)
    assert (after.status, after.rev, after.epoch) == (before.status, before.rev, before.epoch)
    async with bench.database.session() as session:
        assert await session.scalar(sa.select(Worker.stale_finishes).where(Worker.id == old.worker_id)) == 6
    assert await new.finish(Outcome(second, "success"))


async def stale_of(bench: Bench, worker_id: UUID) -> int:
    async with bench.database.session() as session:
        return await session.scalar(sa.select(Worker.stale_finishes).where(Worker.id == worker_id)) or 0


async def test_a_late_end_that_could_not_be_counted_is_dropped_once_and_counted_with_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    one, two = await bench.running(recorder), await bench.running(recorder)
    await rescue_worker(bench.database, recorder.worker_id, "frozen")
    goes_away_after(monkeypatch, bench, 1)
    assert not await recorder.finish(Outcome(one, "success"))
    assert (recorder.stale, await stale_of(bench, recorder.worker_id)) == (1, 0)
    monkeypatch.undo()
    assert not await recorder.finish(Outcome(two, "success"))
    assert (recorder.stale, await stale_of(bench, recorder.worker_id)) == (2, 2)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_late_end_does_not_wait_for_its_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_open, "UNANSWERED_MS", 1000)
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await rescue_worker(bench.database, recorder.worker_id, "frozen")
    async with bench.database.transaction() as session:
        await session.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        row = sa.select(Worker.id).where(Worker.id == recorder.worker_id)
        await session.execute(row.with_for_update())
        async with asyncio.timeout(20):
            assert not await recorder.finish(Outcome(claimed, "success"))
    assert recorder.stale == 1


async def test_a_worker_cannot_end_what_another_holds_at_the_same_epoch(bench: Bench) -> None:
    mine, other = await bench.recorder(), await bench.recorder()
    claimed = await bench.running(mine)
    assert not await other.finish(Outcome(claimed, "success"))
    assert (await bench.row(claimed.id)).status == "running"


@pytest.mark.parametrize("status", ["failed", "retrying", "queued", "released", "lost", "cancelled"])
async def test_after_a_cancel_request_every_end_but_success_is_cancelled(bench: Bench, status: str) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    async with bench.database.transaction() as session:
        assert await actions.cancel(session, claimed.id, actor=ADA) == "requested"
    assert await recorder.finish(Outcome(claimed, status, error="x", retry_after_s=1))  # type: ignore[arg-type]
    row = await bench.row(claimed.id)
    assert (row.status, row.reason) == ("cancelled", "cancelled")
    assert row.completed_at is not None


async def test_success_wins_over_a_cancel_request(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    async with bench.database.transaction() as session:
        await actions.cancel(session, claimed.id, actor=ADA)
    await recorder.finish(Outcome(claimed, "success"))
    assert (await bench.row(claimed.id)).status == "success"


async def test_a_release_burns_no_attempt(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "released", reason="released"))
    row = await bench.row(claimed.id)
    assert (row.status, row.attempt, row.epoch, row.lost_count) == ("queued", 0, 2, 0)
    [attempt] = await bench.attempts(claimed.id)
    assert (attempt.outcome, attempt.reason, row.error) == ("released", "released", None)


async def must_not_run_twice(bench: Bench, name: str = "add") -> None:
    """Workers advertise that the job says `on_lost="fail"`."""
    now = utc_now()
    async with bench.database.transaction() as session:
        session.add(
            JobCatalogue(
                name=name, module="m", queue="default", on_lost="fail", first_seen_at=now, advertised_at=now
            )
        )


@pytest.mark.parametrize(
    ("how", "error", "losses"),
    [("lost", "its process was killed", 1), ("released", "Its worker left before it had ended.", 0)],
)
async def test_what_must_not_run_twice_fails_when_it_is_cut_off(
    bench: Bench, how: Any, error: str, losses: int
) -> None:
    await must_not_run_twice(bench)
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    said = error if how == "lost" else None
    assert await recorder.finish(Outcome(claimed, how, error=said, reason="worker_lost" if said else how))
    row = await bench.row(claimed.id)
    assert (row.status, row.reason, row.error) == ("failed", "worker_lost", error)
    assert (row.attempt, row.epoch, row.lost_count) == (1, 1, losses)
    assert row.error_fingerprint
    [attempt] = await bench.attempts(claimed.id)
    assert (attempt.outcome, attempt.reason, attempt.error) == ("failed", "worker_lost", error)
    assert (await bench.events())[-1] == "job.failed"
    assert await recorder.claim(claimed.id) is None


async def test_what_must_not_run_twice_is_put_back_if_it_had_not_begun(bench: Bench) -> None:
    await must_not_run_twice(bench)
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "queued", reason="released"))
    assert (await bench.row(claimed.id)).status == "queued"


async def test_one_batch_puts_back_what_may_run_twice_and_fails_what_must_not(bench: Bench) -> None:
    await must_not_run_twice(bench, "mail")
    recorder = await bench.recorder()
    jobs = [await bench.running(recorder, name=name) for name in ("add", "mail")]
    outcomes = [Outcome(job, "released", reason="released") for job in jobs]
    assert await write_outcomes(bench.database, recorder.worker_id, outcomes) == [True, True]
    assert [(await bench.row(job.id)).status for job in jobs] == ["queued", "failed"]


async def test_what_a_process_held_that_ended_on_request_fails_if_it_must_not_run_twice(bench: Bench) -> None:
    await must_not_run_twice(bench, "mail")
    recorder = await bench.recorder()
    jobs = [await bench.running(recorder, name=name) for name in ("add", "mail")]
    await pulse.release(bench.database, recorder.worker_id, ())
    rows = [await bench.row(job.id) for job in jobs]
    assert [(row.status, row.reason) for row in rows] == [("queued", "released"), ("failed", "worker_lost")]


async def test_three_deaths_of_a_process_of_its_own_are_poison(bench: Bench) -> None:
    recorder = await bench.recorder()
    job = await bench.enqueue()
    lanes = []
    for _ in range(3):
        claimed = await recorder.claim(job.id)
        assert claimed is not None
        await recorder.finish(Outcome(claimed, "lost", error="died", reason="worker_lost"))
        row = await bench.row(job.id)
        lanes.append((row.status, row.lane))
    assert lanes == [("queued", "rescue"), ("queued", "alone"), ("failed", "alone")]
    assert (row.reason, row.lost_count, row.died_alone) == ("poison", 3, 3)
    async with bench.database.transaction() as session:
        again = await actions.retry(session, job.id, actor=ADA)
    assert (again.status, again.lost_count, again.died_alone) == ("queued", 0, 0)


async def lose(bench: Bench, job_id: UUID, times: int = 1, others: int = 0) -> JobLog:
    """Its workers end so many times, and as many others each time."""
    for _ in range(times):
        for _ in range(others):
            await rescue_worker(bench.database, (await bench.recorder()).worker_id, "killed")
        recorder = await bench.recorder()
        assert await recorder.claim(job_id) is not None
        await rescue_worker(bench.database, recorder.worker_id, "killed")
    return await bench.row(job_id)


async def test_workers_that_are_killed_around_a_job_isolate_it_and_convict_it_only_if_they_are_twenty(
    bench: Bench,
) -> None:
    job = await bench.enqueue()
    for _ in range(10):
        await rescue_worker(bench.database, (await bench.recorder()).worker_id, "killed before")
    assert (await lose(bench, job.id)).lane == "rescue"
    row = await lose(bench, job.id, 18)
    assert (row.status, row.lane, row.lost_count, row.died_alone) == ("queued", "alone", 19, 0)
    row = await lose(bench, job.id)
    assert (row.status, row.reason, row.lost_count) == ("failed", "poison", 20)


async def test_where_workers_end_without_a_job_too_it_is_convicted_only_after_a_hundred(
    bench: Bench,
) -> None:
    job = await bench.enqueue()
    row = await lose(bench, job.id, 19)
    row = await lose(bench, job.id, others=6)
    assert (row.status, row.lost_count) == ("queued", 20)
    row = await lose(bench, job.id, 79, others=1)
    assert (row.status, row.lost_count) == ("queued", 99)
    row = await lose(bench, job.id)
    assert (row.status, row.reason, row.lost_count) == ("failed", "poison", 100)


async def test_many_finishes_share_a_batch_and_each_gets_its_own_answer(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = [await bench.running(recorder) for _ in range(30)]
    async with bench.database.transaction() as session:
        await session.execute(
            sa.text("UPDATE job_logs SET epoch = epoch + 1 WHERE id = :id"),
            {"id": claimed[7].id if bench.database.dialect == "postgresql" else claimed[7].id.hex},
        )
    answers = await asyncio.gather(*(recorder.finish(Outcome(job, "success")) for job in claimed))
    assert [place for place, ok in enumerate(answers) if not ok] == [7]


async def test_the_database_itself_refuses_to_change_a_terminal_job(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, "success", result="1"))
    key = claimed.id if bench.database.dialect == "postgresql" else claimed.id.hex
    for change in (
        "status = 'running'",
        "error = 'x'",
        "status = 'queued', epoch = epoch + 1",
        "epoch = epoch + 1",
    ):
        with pytest.raises(DBAPIError, match="terminal job does not change"):
            async with bench.database.transaction() as session:
                await session.execute(sa.text(f"UPDATE job_logs SET {change} WHERE id = :id"), {"id": key})
    assert (await bench.row(claimed.id)).status == "success"


async def test_counts_follow_every_transition_and_survive_folding(bench: Bench) -> None:
    recorder = await bench.recorder()
    jobs = [await bench.running(recorder) for _ in range(4)]
    await recorder.finish(Outcome(jobs[0], "success"))
    await recorder.finish(Outcome(jobs[1], "failed", error="x"))
    await bench.enqueue()
    expected = {"success": 1, "failed": 1, "running": 2, "queued": 1}
    for step in (None, fold, recount):
        if step is not None:
            await step(bench.database)
        async with bench.database.read() as connection:
            assert await by_status(connection) == expected


async def test_progress_and_lines_are_written_before_the_end(bench: Bench) -> None:
    from worker.joblogs.models import JobLogLine

    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    recorder.notes.progress(claimed, 0.4, "page 40 of 100")
    recorder.notes.line(claimed, "info", "NUL \0 and half \ud800 a pair")
    await recorder.finish(Outcome(claimed, "success"))
    row = await bench.row(claimed.id)
    assert (row.progress, row.progress_note) == (0.4, "page 40 of 100")
    async with bench.database.session() as session:
        [line] = await session.scalars(sa.select(JobLogLine).where(JobLogLine.job_id == claimed.id))
        assert line.message == "NUL \ufffd and half \ufffd a pair"


async def test_an_outcome_waits_for_a_database_that_was_cut_off_and_is_not_blamed_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash of PostgreSQL in the middle of the statement says it: an error of the driver's own, the connection gone."""
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    write, cut = finishes.write_outcomes, 0

    async def cut_twice(*arguments: object) -> list[bool]:
        nonlocal cut
        if (cut := cut + 1) < 3:
            raise DBAPIError("UPDATE", {}, Exception("closed in the middle"), connection_invalidated=True)
        return await write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", cut_twice)
    assert await recorder.finish(Outcome(claimed, "success", result="1"))
    assert ((await bench.row(claimed.id)).status, cut) == ("success", 3)


ENDS = pytest.mark.parametrize("status", ["success", "failed", "retrying", "queued", "lost"])


@ENDS
async def test_an_end_whose_answer_was_lost_is_not_stale(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    rev = claimed.rev
    lose_the_first_answer(monkeypatch)
    assert await recorder.finish(ended(claimed, status))
    assert (recorder.stale, (await bench.row(claimed.id)).rev) == (0, rev + 1)


@ENDS
async def test_an_end_whose_answer_was_lost_is_not_stale_after_an_outage_longer_than_the_lease(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    worker = await bench.recorder()
    recorder = Recorder(bench.database, worker.worker_id, worker.scope, lease_s=-1)
    claimed = await bench.running(recorder)
    lose_the_first_answer(monkeypatch)
    outcome, rev = ended(claimed, status), claimed.rev
    with pytest.raises(TimeoutError):
        await recorder.finish(outcome)
    assert await recorder.finish(outcome), "as the receiver does, which does not give up"
    assert (recorder.stale, recorder.finished, (await bench.row(claimed.id)).rev) == (0, 1, rev + 1)


@pytest.mark.parametrize("status", ["retrying", "queued", "lost"])
async def test_an_end_whose_answer_was_lost_is_not_stale_though_the_job_has_gone_on_since(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    """Only this worker was cut off: others have gone on with what it had given back."""
    worker, other = await bench.recorder(), await bench.recorder()
    recorder = Recorder(bench.database, worker.worker_id, worker.scope, lease_s=-1)
    claimed = await bench.running(recorder)
    lose_the_first_answer(monkeypatch)
    outcome = Outcome(claimed, status, retry_after_s=0.0 if status == "retrying" else None)
    with pytest.raises(TimeoutError):
        await recorder.finish(outcome)
    assert await promote_due(bench.database) == int(status == "retrying")
    assert await other.claim(claimed.id) is not None
    assert await recorder.finish(outcome)
    assert recorder.stale == 0


@pytest.mark.parametrize("status", ["success", "failed", "retrying", "queued"])
async def test_what_was_taken_over_during_the_outage_is_stale_though_it_was_tried_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    worker = await bench.recorder()
    recorder = Recorder(bench.database, worker.worker_id, worker.scope, lease_s=-1)
    claimed = await bench.running(recorder)
    outcome = ended(claimed, status)
    goes_away_after(monkeypatch, bench, 0)
    with pytest.raises(OSError, match="away"):
        await recorder.finish(outcome)
    monkeypatch.undo()
    await rescue_worker(bench.database, recorder.worker_id, "silent")
    assert not await recorder.finish(outcome)
    assert recorder.stale == 1


async def test_who_shares_a_batch_with_an_end_that_was_tried_before_is_stale_as_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row looks as its end would have left it, but nothing says that this end did."""
    worker = await bench.recorder()
    recorder = Recorder(bench.database, worker.worker_id, worker.scope, lease_s=-1)
    tried, twice = await bench.running(recorder), await bench.running(recorder)
    assert await recorder.finish(Outcome(twice, "success"))
    outcome = Outcome(tried, "success")
    lose_the_first_answer(monkeypatch)
    with pytest.raises(TimeoutError):
        await recorder.finish(outcome)
    answers = await asyncio.gather(recorder.finish(outcome), recorder.finish(Outcome(twice, "success")))
    assert (answers, recorder.stale) == ([True, False], 1)


def ended(claimed: Claimed, status: Any) -> Outcome:
    return Outcome(claimed, status, retry_after_s=9.0 if status == "retrying" else None)


def lose_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is written, and nobody hears of it."""
    lost = [True]

    async def write(*args: Any) -> list[bool]:
        written = await write_outcomes(*args)
        if lost:
            lost.clear()
            raise TimeoutError
        return written

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
