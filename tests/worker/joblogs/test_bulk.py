"""A bulk action is previewed, leaves out what came later, says what it could not do, and can be stopped."""

from __future__ import annotations

import pytest

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import utc_now
from worker.errors import Invalid, NotAllowedNow
from worker.joblogs import bulk
from worker.joblogs.models import Operation
from worker.joblogs.recorder import Outcome


async def failures(bench: Bench, n: int) -> None:
    recorder = await bench.recorder()
    for _ in range(n):
        await recorder.finish(Outcome(await bench.running(recorder), "failed", error="x"))


async def start(bench: Bench, action: str, wanted: dict[str, object], **options: object) -> Operation:
    async with bench.database.transaction() as session:
        return await bulk.start(session, action, wanted, actor=ADA, **options)  # type: ignore[arg-type]


async def ended(bench: Bench, operation: Operation) -> Operation:
    while await bulk.run_pending(bench.database):
        pass
    async with bench.database.session() as session:
        found = await session.get(Operation, operation.id)
        assert found is not None
        return found


async def test_matching_rows_are_retried_and_later_ones_are_left_out(bench: Bench) -> None:
    await failures(bench, 3)
    cutoff = utc_now()
    await failures(bench, 2)
    async with bench.database.read() as connection:
        seen = await bulk.preview(connection, bench.database.dialect, "retry", {"q": "status:failed"}, cutoff)
    assert (seen.matching, seen.will, seen.later) == (3, 3, 2)
    operation = await ended(bench, await start(bench, "retry", {"q": "status:failed"}, cutoff=cutoff))
    assert (operation.status, operation.total, operation.done, operation.refused) == ("done", 3, 3, 0)


async def test_what_cannot_be_done_is_counted_with_its_reason(bench: Bench) -> None:
    await failures(bench, 1)
    waiting = await bench.enqueue()
    operation = await ended(bench, await start(bench, "retry", {"q": "job:add"}))
    assert (operation.done, operation.refused) == (1, 1)
    assert operation.refusals[0]["job_id"] == str(waiting.id)
    assert "cannot be retried" in operation.refusals[0]["why"]


async def test_rows_are_chosen_by_id_too(bench: Bench) -> None:
    jobs = [await bench.enqueue() for _ in range(3)]
    operation = await ended(bench, await start(bench, "cancel", {"ids": [str(jobs[1].id)]}))
    assert operation.done == 1
    assert [(await bench.row(job.id)).status for job in jobs] == ["queued", "cancelled", "queued"]


async def test_a_stop_ends_it_and_cannot_be_repeated(bench: Bench) -> None:
    await bench.enqueue()
    operation = await start(bench, "cancel", {"q": "status:queued"})
    async with bench.database.transaction() as session:
        await bulk.stop(session, operation.id, actor=ADA)
    found = await ended(bench, operation)
    assert (found.status, found.done) == ("stopped", 0)
    with pytest.raises(NotAllowedNow):
        async with bench.database.transaction() as session:
            await bulk.stop(session, operation.id, actor=ADA)


@pytest.mark.parametrize(
    ("action", "wanted", "field"),
    [
        ("explode", {"q": "status:failed"}, "action"),
        ("retry", {}, "filter"),
        ("retry", {"q": "status:nope"}, "filter.q"),
        ("retry", {"ids": ["1"]}, "filter.ids"),
        ("retry", {"q": "x", "where": "1=1"}, "filter"),
    ],
)
async def test_a_wrong_wish_names_its_field(
    bench: Bench, action: str, wanted: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid) as wrong:
        await start(bench, action, wanted)
    assert field in wrong.value.problems
