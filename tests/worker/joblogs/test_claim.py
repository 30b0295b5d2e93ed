"""A claim takes a queued job for one worker, under a new epoch, if nothing holds it back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.joblogs.conftest import ADA, Bench, goes_away_after
from worker.db.base import new_id, utc_now
from worker.joblogs.limits import admit
from worker.joblogs.recorder import Outcome
from worker.joblogs.sweeper import rescue_worker
from worker.jobs import actions as controls


async def test_two_workers_never_both_get_a_job(bench: Bench) -> None:
    jobs = [await bench.enqueue() for _ in range(20)]
    one, two = await bench.recorder(), await bench.recorder()
    claims = await asyncio.gather(*(r.claim(job.id) for job in jobs for r in (one, two)))
    taken = [claim.id for claim in claims if claim]
    assert sorted(taken) == sorted(job.id for job in jobs)
    assert {claim.epoch for claim in claims if claim} == {1}


async def test_a_poll_takes_a_rescued_job_before_all_that_wait(bench: Bench) -> None:
    dead = await bench.recorder()
    lost = await bench.running(dead, priority=9)
    waiting = [await bench.enqueue(priority=0) for _ in range(5)]
    await rescue_worker(bench.database, dead.worker_id, "killed")
    first, second = await (await bench.recorder()).poll(2)
    assert (first.id, first.lane) == (lost.id, "rescue")
    assert second.id == waiting[0].id


async def test_a_claim_says_what_the_job_is_and_starts_its_clock(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder, args={"a": 1}, priority=3)
    row = await bench.row(claimed.id)
    assert (row.status, row.epoch, row.attempt, row.worker_id) == ("running", 1, 1, recorder.worker_id)
    assert row.started_at is not None
    assert (claimed.args, claimed.priority, claimed.started_at) == ({"a": 1}, 3, row.started_at)
    assert (await bench.events())[-1] == "job.started"


async def test_what_is_unknown_not_due_or_elsewhere_is_left_alone(bench: Bench) -> None:
    recorder = await bench.recorder(names=("add",))
    waiting = [
        await bench.enqueue(run_at=utc_now() + timedelta(hours=1)),
        await bench.enqueue("mail"),
        await bench.enqueue(queue="elsewhere"),
    ]
    assert [await recorder.claim(job.id) for job in waiting] == [None, None, None]
    assert await recorder.claim(new_id()) is None


async def test_a_paused_queue_or_job_starts_nothing_until_it_is_resumed(bench: Bench) -> None:
    recorder = await bench.recorder()
    job = await bench.enqueue()
    async with bench.database.transaction() as session:
        await controls.pause_queue(session, "default", reason="deploy", actor=ADA)
    assert await recorder.claim(job.id) is None
    assert await recorder.poll(10) == []
    async with bench.database.transaction() as session:
        await controls.resume_queue(session, "default", actor=ADA)
    await bench.database.settle()
    assert [bell.job_id for bell in bench.told[-1].rings] == [job.id]
    assert await recorder.claim(job.id) is not None


async def test_a_queue_limit_holds_over_all_workers(bench: Bench) -> None:
    async with bench.database.transaction() as session:
        await controls.set_queue_limit(session, "default", 3, actor=ADA)
    recorders = [await bench.recorder() for _ in range(4)]
    jobs = [await bench.enqueue() for _ in range(12)]
    claims = await asyncio.gather(*(r.claim(job.id) for r in recorders for job in jobs))
    assert len([claim for claim in claims if claim]) == 3


async def test_an_end_rings_for_the_next_of_a_limited_queue(bench: Bench) -> None:
    async with bench.database.transaction() as session:
        await controls.set_queue_limit(session, "default", 1, actor=ADA)
    recorder = await bench.recorder()
    first, second = await bench.enqueue(), await bench.enqueue()
    claimed = await recorder.claim(first.id)
    assert claimed is not None
    assert await recorder.claim(second.id) is None
    await bench.database.settle()
    bench.told.clear()
    await recorder.finish(Outcome(claimed, "success"))
    await bench.database.settle()
    assert [bell.job_id for told in bench.told for bell in told.rings] == [second.id]
    assert await recorder.claim(second.id) is not None


async def test_a_poll_takes_the_oldest_of_the_highest_priority(bench: Bench) -> None:
    recorder = await bench.recorder()
    late = await bench.enqueue(priority=9)
    first = await bench.enqueue(priority=0)
    second = await bench.enqueue(priority=0)
    assert [claim.id for claim in await recorder.poll(2)] == [first.id, second.id]
    assert [claim.id for claim in await recorder.poll(2)] == [late.id]


async def test_a_claim_whose_answer_was_lost_is_found_again(bench: Bench) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    assert [(row.id, row.epoch) for row in await recorder.held()] == [(claimed.id, claimed.epoch)]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy")), max_size=30),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 5)),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 5)),
)
def test_what_is_admitted_never_exceeds_a_limit(
    wanted: list[tuple[str, str]], jobs: dict[str, int], queues: dict[str, int]
) -> None:
    candidates = [(new_id(), name, queue) for name, queue in wanted]
    ids, full_jobs, full_queues = admit(candidates, jobs, queues)
    admitted = set(ids)
    for name, limit in jobs.items():
        assert sum(c[0] in admitted and c[1] == name for c in candidates) <= limit
    for queue, limit in queues.items():
        assert sum(c[0] in admitted and c[2] == queue for c in candidates) <= limit
    for job_id, name, queue in candidates:  # nobody is held back for nothing
        assert job_id in admitted or name in full_jobs or queue in full_queues
    assert full_jobs <= set(jobs)
    assert full_queues <= set(queues)


async def test_a_worker_that_was_declared_dead_takes_nothing_more(bench: Bench) -> None:
    frozen = await bench.recorder()
    job = await bench.enqueue()
    await rescue_worker(bench.database, frozen.worker_id, "it did not beat")
    assert await frozen.claim(job.id) is None
    assert await frozen.poll(1) == []
    assert (await bench.row(job.id)).status == "queued"


async def test_a_poll_whose_second_queue_fails_keeps_what_it_took_from_the_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    first, second = await bench.enqueue(), await bench.enqueue("mail")
    goes_away_after(monkeypatch, bench, 1)
    assert [claim.id for claim in await recorder.poll(5)] == [first.id]
    assert [claim.id for claim in await recorder.held()] == [first.id]
    assert (await bench.row(second.id)).status == "queued"


async def test_a_poll_that_took_nothing_before_it_failed_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    await bench.enqueue("mail")
    goes_away_after(monkeypatch, bench, 1)
    with pytest.raises(OSError, match="away"):
        await recorder.poll(5)
