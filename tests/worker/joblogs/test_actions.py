"""The buttons: cancel, retry, rerun, edit, delete, restore; each says no clearly, and a no changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.worker.joblogs.conftest import ADA, Bench
from worker.accounts.models import AuditEntry
from worker.db.base import new_id, utc_now
from worker.errors import Invalid, KeyHeld, NotAllowedNow, NotFound, TooLate
from worker.joblogs import actions
from worker.joblogs.counters import by_status
from worker.joblogs.recorder import Outcome


async def failed(bench: Bench, **options: object) -> tuple[object, int]:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder, **options)
    await recorder.finish(Outcome(claimed, "failed", error="boom", reason="error"))
    return claimed.id, claimed.epoch


async def test_a_queued_job_is_cancelled_at_once_and_never_runs(bench: Bench) -> None:
    job = await bench.enqueue()
    async with bench.database.transaction() as session:
        assert await actions.cancel(session, job.id, actor=ADA) == "done"
    assert await (await bench.recorder()).claim(job.id) is None
    assert (await bench.row(job.id)).status == "cancelled"
    assert await bench.events() == ["job.queued", "job.cancelled"]


async def test_a_running_job_is_asked_to_stop_through_its_worker(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    async with bench.database.transaction() as session:
        assert await actions.cancel(session, claimed.id, actor=ADA) == "requested"
    await bench.database.settle()
    assert bench.told[-1].signals == [
        (recorder.worker_id, {"cancel": str(claimed.id), "epoch": claimed.epoch})
    ]
    assert (await bench.row(claimed.id)).cancel_requested_at is not None


async def test_an_ended_job_cannot_be_cancelled(bench: Bench) -> None:
    job_id, _ = await failed(bench)
    with pytest.raises(TooLate, match="ended as failed"):
        async with bench.database.transaction() as session:
            await actions.cancel(session, job_id, actor=ADA)  # type: ignore[arg-type]


async def test_a_retry_keeps_the_history_and_gives_all_retries_back(bench: Bench) -> None:
    job_id, epoch = await failed(bench)
    async with bench.database.transaction() as session:
        await actions.retry(session, job_id, actor=ADA, epoch=epoch)  # type: ignore[arg-type]
    row = await bench.row(job_id)  # type: ignore[arg-type]
    assert (row.status, row.epoch, row.attempt, row.error, row.completed_at) == (
        "queued",
        epoch + 1,
        0,
        None,
        None,
    )
    assert [attempt.error for attempt in await bench.attempts(job_id)] == ["boom"]  # type: ignore[arg-type]


async def test_a_double_click_on_retry_is_one_retry(bench: Bench) -> None:
    job_id, epoch = await failed(bench)
    for _ in range(2):
        async with bench.database.transaction() as session:
            await actions.retry(session, job_id, actor=ADA, epoch=epoch)  # type: ignore[arg-type]
    assert (await bench.row(job_id)).epoch == epoch + 1  # type: ignore[arg-type]
    assert (await bench.events()).count("job.queued") == 2


async def test_a_running_job_cannot_be_retried(bench: Bench) -> None:
    claimed = await bench.running(await bench.recorder())
    with pytest.raises(NotAllowedNow, match="is running: it cannot be retried"):
        async with bench.database.transaction() as session:
            await actions.retry(session, claimed.id, actor=ADA)


async def test_a_retry_against_a_live_holder_of_its_key_names_it(bench: Bench) -> None:
    job_id, _ = await failed(bench, unique_key="k")
    holder = await bench.enqueue(unique_key="k")
    with pytest.raises(KeyHeld, match=str(holder.id)):
        async with bench.database.transaction() as session:
            await actions.retry(session, job_id, actor=ADA)  # type: ignore[arg-type]
    assert (await bench.row(job_id)).status == "failed"  # type: ignore[arg-type]


async def test_a_rerun_is_a_new_job_that_names_its_origin(bench: Bench) -> None:
    job_id, _ = await failed(bench, args={"a": 1}, priority=2)
    async with bench.database.transaction() as session:
        job = await actions.rerun(session, job_id, actor=ADA, args={"a": 2})  # type: ignore[arg-type]
    row = await bench.row(job.id)
    assert (row.rerun_of, row.args, row.priority, row.status) == (job_id, {"a": 2}, 2, "queued")


async def test_an_edit_before_the_start_changes_what_will_run(bench: Bench) -> None:
    job = await bench.enqueue(args={"a": 1})
    async with bench.database.transaction() as session:
        await actions.edit(session, job.id, actor=ADA, args={"a": 2}, priority=0, note="look", tags=["x"])
    claimed = await (await bench.recorder()).claim(job.id)
    assert claimed is not None
    assert (claimed.args, claimed.priority) == ({"a": 2}, 0)
    row = await bench.row(job.id)
    assert (row.note, row.tags) == ("look", ["x"])


async def test_moving_run_at_ahead_schedules_and_back_queues(bench: Bench) -> None:
    job = await bench.enqueue()
    for run_at, status in ((utc_now() + timedelta(hours=1), "scheduled"), (utc_now(), "queued")):
        async with bench.database.transaction() as session:
            await actions.edit(session, job.id, actor=ADA, run_at=run_at)
        assert (await bench.row(job.id)).status == status


async def test_arguments_of_a_started_job_stay_but_its_note_may_change(bench: Bench) -> None:
    job_id, _ = await failed(bench)
    with pytest.raises(NotAllowedNow, match="cannot be edited"):
        async with bench.database.transaction() as session:
            await actions.edit(session, job_id, actor=ADA, args={}, note="n")  # type: ignore[arg-type]
    assert (await bench.row(job_id)).note is None  # type: ignore[arg-type]
    async with bench.database.transaction() as session:
        await actions.edit(session, job_id, actor=ADA, note="n", resolved=True)  # type: ignore[arg-type]
    row = await bench.row(job_id)  # type: ignore[arg-type]
    assert (row.note, row.resolved_at is not None) == ("n", True)


async def test_a_wrong_edit_names_its_fields(bench: Bench) -> None:
    job = await bench.enqueue()
    with pytest.raises(Invalid) as wrong:
        async with bench.database.transaction() as session:
            await actions.edit(session, job.id, actor=ADA, priority=77)
    assert set(wrong.value.problems) == {"priority"}


async def test_a_deleted_job_is_gone_from_lists_and_counts_and_comes_back(bench: Bench) -> None:
    job_id, _ = await failed(bench)
    async with bench.database.transaction() as session:
        await actions.delete(session, job_id, actor=ADA)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await bench.row(job_id)  # type: ignore[arg-type]
    async with bench.database.read() as connection:
        assert (await by_status(connection)).get("failed", 0) == 0
    async with bench.database.transaction() as session:
        await actions.restore(session, job_id, actor=ADA)  # type: ignore[arg-type]
    assert (await bench.row(job_id)).status == "failed"  # type: ignore[arg-type]


async def test_a_live_job_cannot_be_deleted(bench: Bench) -> None:
    job = await bench.enqueue()
    with pytest.raises(NotAllowedNow, match="cannot be deleted"):
        async with bench.database.transaction() as session:
            await actions.delete(session, job.id, actor=ADA)


async def test_every_action_leaves_an_audit_entry_in_its_transaction(bench: Bench) -> None:
    job = await bench.enqueue(actor=ADA)
    async with bench.database.transaction() as session:
        await actions.edit(session, job.id, actor=ADA, priority=1)
        await actions.cancel(session, job.id, actor=ADA)
        await actions.retry(session, job.id, actor=ADA)
    async with bench.database.session() as session:
        entries = list(await session.scalars(sa.select(AuditEntry).order_by(AuditEntry.id)))
    assert [(e.action, e.actor, e.object_id) for e in entries] == [
        (f"job.{verb}", "ada", str(job.id)) for verb in ("run", "edit", "cancel", "retry")
    ]
    assert (entries[1].before, entries[1].after) == ({"priority": 5}, {"priority": 1})


async def test_a_job_that_is_not_there_is_not_found_by_name(bench: Bench) -> None:
    missing = new_id()
    for action in (actions.cancel, actions.retry, actions.delete, actions.restore, actions.edit):
        with pytest.raises(NotFound, match=str(missing)):
            async with bench.database.transaction() as session:
                await action(session, missing, actor=ADA)  # type: ignore[operator]
