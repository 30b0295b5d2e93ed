"""A job is accepted when its row is committed, and rung only then."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import utc_now
from worker.errors import Invalid, NotFound, QueueFull, UnknownJob
from worker.joblogs import actions
from worker.joblogs.counters import by_status


async def test_an_accepted_job_is_queued_counted_told_and_rung_once(bench: Bench) -> None:
    job = await bench.enqueue("add", {"a": 10**40}, tags=["import"], priority=2, actor=ADA)
    await bench.database.settle()
    row = await bench.row(job.id)
    assert (row.status, row.args, row.tags, row.priority, row.epoch, row.user_id) == (
        "queued", {"a": 10**40}, ["import"], 2, 0, "ada",
    )  # fmt: skip
    [pending] = bench.told
    assert [bell.job_id for bell in pending.rings] == [job.id]
    assert pending.changes == {("job", str(job.id)): 1}
    assert len(pending.outbox_ids) == 1
    assert await bench.events() == ["job.queued"]
    async with bench.database.read() as connection:
        assert await by_status(connection) == {"queued": 1}


async def test_a_rolled_back_enqueue_leaves_nothing_and_rings_nobody(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="changed my mind"):  # noqa: PT012 # the transaction is what raises
        async with bench.database.transaction() as session:
            job = await actions.enqueue(session, "add", {})
            raise RuntimeError("changed my mind")
    await bench.database.settle()
    assert bench.told == []
    assert await bench.events() == []
    with pytest.raises(NotFound):
        await bench.row(job.id)


async def test_a_job_with_a_time_ahead_is_scheduled_and_not_rung(bench: Bench) -> None:
    job = await bench.enqueue(run_at=utc_now() + timedelta(hours=1))
    await bench.database.settle()
    assert (await bench.row(job.id)).status == "scheduled"
    assert bench.told[0].rings == []


async def test_every_wrong_field_is_named_at_once_and_nothing_is_written(bench: Bench) -> None:
    with pytest.raises(Invalid) as wrong:
        await bench.enqueue(
            args={"bad": 1}, queue="$JS.>", priority=12, max_retries=-1, timeout_s=0, unique_key=""
        )
    assert set(wrong.value.problems) == {"bad", "queue", "priority", "max_retries", "timeout_s", "unique_key"}
    assert "0 (first) to 9 (last)" in wrong.value.problems["priority"]
    assert await bench.events() == []


async def test_an_unknown_job_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(UnknownJob, match=r"os\.system"):
        await bench.enqueue("os.system")


async def test_a_live_holder_of_the_unique_key_is_returned_until_it_ends(bench: Bench) -> None:
    first = await bench.enqueue(unique_key="k")
    second = await bench.enqueue(unique_key="k")
    assert (second.id, actions.duplicate(second), actions.duplicate(first)) == (first.id, True, False)
    async with bench.database.transaction() as session:
        await actions.cancel(session, first.id, actor=ADA)
    assert (await bench.enqueue(unique_key="k")).id != first.id


async def test_a_hundred_at_once_with_one_key_make_one_job(bench: Bench) -> None:
    jobs = await asyncio.gather(*(bench.enqueue(unique_key="k") for _ in range(20)))
    assert len({job.id for job in jobs}) == 1
    assert (await bench.events()) == ["job.queued"]


async def test_the_depth_limit_refuses_before_anything_is_written(bench: Bench) -> None:
    async with bench.database.transaction() as session:
        await actions.enqueue_many(session, "add", [{"n": n} for n in range(50)])
    with pytest.raises(QueueFull, match="limit 50"):
        await bench.enqueue()
    assert (await bench.enqueue("mail")).queue == "mail"


async def test_a_bulk_with_one_wrong_request_writes_none(bench: Bench) -> None:
    with pytest.raises(Invalid, match=r"args\[1\]\.bad"):
        async with bench.database.transaction() as session:
            await actions.enqueue_many(session, "add", [{"a": 1}, {"bad": 2}, {"a": 3}])
    assert await bench.events() == []
