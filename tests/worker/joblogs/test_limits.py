"""Limits of jobs and queues at the claim: held over all workers, unfair to nobody, and whoever is next is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from tests.worker.joblogs.conftest import ADA, Bench, Offer, goes_away_after
from worker.db.base import utc_now
from worker.errors import Invalid
from worker.joblogs.recorder import Outcome
from worker.joblogs.sweeper import rescue_worker
from worker.jobs import actions as controls
from worker.jobs.models import JobCatalogue
from worker.jobs.rate import Rate


@pytest.fixture
async def offered(bench: Bench) -> Bench:
    """Both jobs stand in the catalogue, as a worker would have advertised them."""
    now = utc_now()
    rows = [
        {"name": name, "module": "m", "queue": queue, "first_seen_at": now, "advertised_at": now}
        for name, queue in (("add", "default"), ("mail", "mail"))
    ]
    async with bench.database.transaction() as session:
        await session.execute(sa.insert(JobCatalogue), rows)
    return bench


async def limit(bench: Bench, name: str = "add", **limits: object) -> None:
    async with bench.database.transaction() as session:
        await controls.set_job_limit(session, name, actor=ADA, **limits)  # type: ignore[arg-type]


async def rang(bench: Bench, done: Callable[[list[object]], bool]) -> list[object]:
    """The jobs that were rung since `told` was cleared, once they are as wanted."""
    rung: list[object] = []
    async with asyncio.timeout(20):
        while not done(rung):
            await asyncio.sleep(0.01)
            rung = [bell.job_id for told in bench.told for bell in told.rings]
    return rung


async def test_a_jobs_limit_holds_over_all_workers_and_all_queues(offered: Bench) -> None:
    await limit(offered, concurrency=3)
    recorders = [await offered.recorder() for _ in range(4)]
    jobs = [await offered.enqueue(queue=queue) for queue in ("default", "mail") * 6]
    claims = await asyncio.gather(*(r.claim(job.id) for r in recorders for job in jobs))
    assert len([claim for claim in claims if claim]) == 3
    assert [claim for r in recorders for claim in await r.poll(10)] == []


async def test_a_rate_holds_over_all_workers(offered: Bench) -> None:
    await limit(offered, rate=1 / 3600, burst=5)
    recorders = [await offered.recorder() for _ in range(4)]
    jobs = [await offered.enqueue() for _ in range(12)]
    claims = await asyncio.gather(*(r.claim(job.id) for r in recorders for job in jobs))
    assert len([claim for claim in claims if claim]) == 5
    assert [claim for r in recorders for claim in await r.poll(10)] == []


async def test_what_a_rate_let_in_is_judged_by_the_rule(offered: Bench) -> None:
    """Twenty jobs at twenty a second, taken by polls: the starts in the database never outrun the rate."""
    await limit(offered, rate=20.0, burst=2)
    recorders = [await offered.recorder(), await offered.recorder()]
    jobs = [await offered.enqueue() for _ in range(20)]
    taken: list[object] = []
    async with asyncio.timeout(30):
        while len(taken) < len(jobs):
            for recorder in recorders:
                taken += [claim.id for claim in await recorder.poll(10)]
            await asyncio.sleep(0.005)
    starts = sorted([(await offered.row(job.id)).started_at for job in jobs])
    interval = Rate.of(20.0).interval
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= 2 + (starts[last] - starts[first]) // interval


async def test_whoever_is_held_back_by_a_rate_is_woken_when_its_time_comes(offered: Bench) -> None:
    await limit(offered, rate=4.0, burst=1)
    recorder = await offered.recorder()
    first, second, third = [await offered.enqueue() for _ in range(3)]
    offered.told.clear()
    assert [claim.id for claim in await recorder.poll(3)] == [first.id]
    assert await rang(offered, lambda rung: len(rung) >= 1) == [second.id]
    assert [claim.id for claim in await recorder.poll(3)] == [second.id]
    assert await rang(offered, lambda rung: len(rung) >= 2) == [second.id, third.id]
    await recorder.close()


async def test_only_whoever_started_the_last_one_rings_for_the_next(offered: Bench) -> None:
    await limit(offered, rate=1 / 3600, burst=1)
    recorder, other = await offered.recorder(), await offered.recorder()
    first, second = await offered.enqueue(), await offered.enqueue()
    offered.told.clear()
    assert await recorder.claim(first.id) is not None
    assert await other.claim(second.id) is None
    assert [await other.poll(10) for _ in range(3)] == [[]] * 3
    assert (recorder.next_starts.awaited, other.next_starts.awaited) == (["add"], [])
    await recorder.close()
    assert recorder.next_starts.awaited == []
    assert [bell for told in offered.told for bell in told.rings] == []


async def test_a_poll_passes_over_what_is_held_back(offered: Bench) -> None:
    """Thirty jobs of a full kind stand before one that may run, in the same queue."""
    recorder = await offered.recorder()
    await limit(offered, concurrency=1)
    await limit(offered, "mail", rate=1 / 3600)
    assert await recorder.claim((await offered.enqueue()).id) is not None
    assert await recorder.claim((await offered.enqueue("mail", queue="default")).id) is not None
    for _ in range(15):
        await offered.enqueue(priority=0)
        await offered.enqueue("mail", queue="default", priority=0)
    offered.database.info["reception"].offers.known["free"] = Offer("free", "default")
    able = await offered.recorder(names=("add", "mail", "free"))
    wanted = await offered.enqueue("free", priority=9)
    assert [claim.id for claim in await able.poll(5)] == [wanted.id]


async def test_a_full_queue_holds_no_other_queue_back(offered: Bench) -> None:
    recorder = await offered.recorder()
    async with offered.database.transaction() as session:
        await controls.set_queue_limit(session, "default", 1, actor=ADA)
    assert await recorder.claim((await offered.enqueue()).id) is not None
    for _ in range(5):
        await offered.enqueue(priority=0)
    mail = await offered.enqueue("mail")
    assert [claim.id for claim in await recorder.poll(5)] == [mail.id]


async def test_an_end_rings_for_the_next_of_a_limited_job_but_not_in_a_paused_queue(offered: Bench) -> None:
    await limit(offered, concurrency=1)
    recorder = await offered.recorder()
    claimed = await offered.running(recorder)
    held, second = await offered.enqueue(priority=0), await offered.enqueue()
    elsewhere = await offered.enqueue(queue="mail")
    assert [await recorder.claim(job.id) for job in (held, second, elsewhere)] == [None] * 3
    offered.told.clear()
    await recorder.finish(Outcome(claimed, "success"))
    assert await rang(offered, lambda rung: len(rung) >= 1) == [held.id]
    claimed = await recorder.claim(held.id)
    assert claimed is not None
    async with offered.database.transaction() as session:
        await controls.pause_queue(session, "default", actor=ADA)
    offered.told.clear()
    await recorder.finish(Outcome(claimed, "success"))
    await offered.database.settle()
    assert [bell for told in offered.told for bell in told.rings] == []


async def test_lifting_a_limit_rings_for_what_waits(offered: Bench) -> None:
    await limit(offered, rate=1 / 3600, burst=1)
    recorder = await offered.recorder()
    await offered.running(recorder)
    second = await offered.enqueue()
    assert await recorder.claim(second.id) is None
    offered.told.clear()
    await limit(offered, rate=None)
    assert await rang(offered, lambda rung: len(rung) >= 1) == [second.id]
    assert await recorder.claim(second.id) is not None


async def test_limits_change_one_by_one_and_wrong_ones_are_named(offered: Bench) -> None:
    await limit(offered, concurrency=4, rate=0.5)
    await limit(offered, burst=3)
    async with offered.database.session() as session:
        job = await session.get(JobCatalogue, "add")
        assert job is not None
        assert (job.concurrency, job.rate_limit, job.rate_burst) == (4, 0.5, 3)
    with pytest.raises(Invalid) as refused:
        await limit(offered, concurrency=0, rate=-1.0, burst=100_000)
    assert set(refused.value.problems) == {"concurrency", "rate_limit", "rate_burst"}
    with pytest.raises(Invalid, match="means nothing without a rate"):
        await limit(offered, "mail", burst=3)


async def test_a_poll_looks_at_the_queues_in_the_order_it_is_given(bench: Bench) -> None:
    recorder = await bench.recorder()
    first, mail = await bench.enqueue(), await bench.enqueue("mail")
    assert [claim.id for claim in await recorder.poll(1, ["mail", "default"])] == [mail.id]
    assert [claim.id for claim in await recorder.poll(2, ["mail", "default"])] == [first.id]


async def test_a_place_that_a_dead_worker_gives_up_for_good_rings_for_the_next(offered: Bench) -> None:
    await limit(offered, concurrency=1)
    async with offered.database.transaction() as session:
        (await session.get_one(JobCatalogue, "add")).on_lost = "fail"
    recorder, other = await offered.recorder(), await offered.recorder()
    await offered.running(recorder)
    second = await offered.enqueue()
    assert await other.claim(second.id) is None
    offered.told.clear()
    await rescue_worker(offered.database, recorder.worker_id, "killed")
    assert await rang(offered, lambda rung: len(rung) >= 1) == [second.id]
    assert await other.claim(second.id) is not None


async def test_without_limits_a_batch_asks_about_them_once(offered: Bench) -> None:
    """What everybody pays, at the claim and at the finish, however many jobs are in the batch."""
    asked: list[str] = []
    engine = offered.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    recorder = await offered.recorder()
    jobs = [await offered.enqueue() for _ in range(20)]
    asked.clear()
    claimed = await asyncio.gather(*(recorder.claim(job.id) for job in jobs))
    assert len([statement for statement in asked if "concurrency" in statement]) == 1
    asked.clear()
    await asyncio.gather(*(recorder.finish(Outcome(one, "success")) for one in claimed if one))
    assert len([statement for statement in asked if "concurrency" in statement]) == 1


async def test_a_poll_that_fails_when_it_looks_behind_a_full_job_keeps_what_it_took(
    offered: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(offered, concurrency=1)
    recorder = await offered.recorder()
    first, _ = await offered.enqueue(), await offered.enqueue()
    behind = await offered.enqueue("mail", queue="default")
    goes_away_after(monkeypatch, offered, 1)
    assert [claim.id for claim in await recorder.poll(2, ["default"])] == [first.id]
    monkeypatch.undo()
    assert [claim.id for claim in await recorder.poll(2, ["default"])] == [behind.id]
