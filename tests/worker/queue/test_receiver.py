"""JobReceiver on a real database, with doorbells in memory: what it takes, keeps free, gives back and adopts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from worker import JobContext, job
from worker.db import half_open
from worker.db.base import new_id
from worker.db.session import Doorbell
from worker.ending import end
from worker.engine import Engine
from worker.joblogs.claims import Scope, claim_ids
from worker.joblogs.models import JobLog
from worker.jobs.models import JobCatalogue
from worker.jobs.registry import Registry
from worker.process import child, presence
from worker.process.child import DRAIN_S, FOR_EVER_S, WorkerChild
from worker.process.entry import Orders, Stop
from worker.queue.lanes import Lane, parse_queues
from worker.settings import Settings

WITHIN_S = 30
started: list[str] = []
gates: dict[str, asyncio.Event] = {}


@job
async def wait(ctx: JobContext, name: str) -> str:
    started.append(name)
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@job(on_lost="fail")
async def wait_once(ctx: JobContext, name: str) -> str:
    """Must not run twice."""
    return await wait(ctx, name)


@job
async def quick(n: int) -> int:
    return n


@job
def threaded(ctx: JobContext) -> str:
    import threading

    return threading.current_thread().name


class Bench:
    """An engine and one worker in this very loop."""

    def __init__(self, engine: Engine, slots: int, priorities: str = "0-9") -> None:
        self.engine = engine
        self.child = WorkerChild(engine, Orders(str(new_id()), "", 0, slots, "default", priorities))
        self.stop = asyncio.Event()

    @property
    def receiver(self) -> Any:
        return self.child.receiver

    async def start(self) -> Bench:
        await self.child.enter("inline", None)
        self.task = asyncio.create_task(self.receiver.listen(self.stop))
        return self

    async def close(self) -> None:
        for gate in gates.values():
            gate.set()
        self.stop.set()
        await self.task

    async def until(self, done: Callable[[], Any]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not done():
                await asyncio.sleep(0.01)

    async def row(self, job_id: UUID) -> Any:
        async with self.engine.database.read() as connection:
            found = await connection.execute(
                sa.select(JobLog.status, JobLog.reason, JobLog.epoch, JobLog.attempt, JobLog.result).where(
                    JobLog.id == job_id
                )
            )
            return found.one()

    async def ended(self, job_id: UUID, status: str = "success") -> Any:
        async with asyncio.timeout(WITHIN_S):
            while (row := await self.row(job_id)).status != status:
                await asyncio.sleep(0.01)
        return row


@pytest.fixture
async def engine(database_url: str, tmp_path):
    started.clear()
    gates.clear()
    environ = {"DATABASE_URL": database_url, "M_HOME": str(tmp_path)}
    async with Engine.create(
        Settings.from_env(environ), registry=Registry([wait, wait_once, quick, threaded])
    ) as engine:
        yield engine


@pytest.fixture
async def bench(engine: Engine):
    made: list[Bench] = []

    async def make(slots: int = 3, priorities: str = "0-9") -> Bench:
        made.append(await Bench(engine, slots, priorities).start())
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_it_never_holds_more_than_its_slots_and_keeps_one_for_rescued_jobs(engine: Engine, bench: Any):
    worker = await bench(slots=3)
    ids = [await engine.enqueue("wait", {"name": f"n{n}"}) for n in range(6)]
    await worker.until(lambda: len(started) == 2)
    await asyncio.sleep(1.5)
    assert len(started) == 2
    async with engine.database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == ids[5]).values(lane="rescue"))
    await engine.doorbells.ring([Doorbell(ids[5], "default", 5, rescue=True)])
    await worker.until(lambda: "n5" in started)
    assert worker.receiver.slots.running == 3


@pytest.mark.parametrize("connected", [True, False])
async def test_a_rescued_job_whose_doorbell_is_lost_finds_the_slot_that_is_kept_for_it(
    engine: Engine, bench: Any, monkeypatch: pytest.MonkeyPatch, connected: bool
):
    worker = await bench(slots=2)
    ids = [await engine.enqueue("wait", {"name": f"n{n}"}) for n in range(3)]
    await worker.until(lambda: len(started) == 1)
    monkeypatch.setattr(engine.doorbells, "connected", connected)
    async with engine.database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == ids[2]).values(lane="rescue"))
    await worker.until(lambda: "n2" in started)
    assert set(started) == {"n0", "n2"}, "an ordinary one takes no slot that is kept"


async def test_a_slot_is_free_as_soon_as_the_function_ended(engine: Engine, bench: Any):
    worker = await bench(slots=1)
    held = asyncio.Event()
    finish = worker.child.recorder.finish

    async def slow(outcome: Any) -> bool:
        await held.wait()
        return await finish(outcome)

    worker.child.recorder.finish = slow
    ids = [await engine.enqueue("quick", {"n": n}) for n in range(5)]
    await worker.until(lambda: len(worker.receiver.held) == 5 and worker.receiver.slots.running == 0)
    held.set()
    assert [(await worker.ended(job_id)).result for job_id in ids] == [0, 1, 2, 3, 4]


async def test_outcomes_that_cannot_be_written_stop_the_taking(engine: Engine, bench: Any):
    worker = await bench(slots=1)
    worker.receiver.slots.most_unwritten = 3
    held = asyncio.Event()
    finish = worker.child.recorder.finish

    async def slow(outcome: Any) -> bool:
        await held.wait()
        return await finish(outcome)

    worker.child.recorder.finish = slow
    ids = [await engine.enqueue("quick", {"n": n}) for n in range(6)]
    await worker.until(lambda: len(worker.receiver.held) == 3)
    await asyncio.sleep(0.3)
    assert len(worker.receiver.held) == 3
    held.set()
    for job_id in ids:
        await worker.ended(job_id)


async def test_a_job_that_only_others_know_is_offered_to_them_five_times(
    engine: Engine, bench: Any, monkeypatch
):
    monkeypatch.setattr("worker.queue.receiver.NOT_MINE_NAK_S", 0.01)
    async with engine.database.transaction() as session:
        job_id = new_id()
        now = await engine.database.now(session)
        session.add(JobLog(id=job_id, job_name="theirs", queue="default", status="queued", args={}, enqueued_at=now, run_at=now))  # fmt: skip
    worker = await bench()
    naks: list[float] = []
    put_later = engine.doorbells.put_later

    def counted(lane: Lane, job: UUID, delay_s: float) -> None:
        naks.append(delay_s)
        put_later(lane, job, delay_s)

    monkeypatch.setattr(engine.doorbells, "put_later", counted)
    await engine.doorbells.ring([Doorbell(job_id, "default")])
    await worker.until(lambda: len(naks) == 5)
    await asyncio.sleep(0.2)
    assert (len(naks), (await worker.row(job_id)).status) == (5, "queued")


class Bell:
    """A doorbell that remembers its answer."""

    lane = Lane("default", "normal")

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        self.answer: str | None = None

    async def ack(self) -> None:
        self.answer = "ack"

    async def nak(self, delay_s: float = 0.0) -> None:
        self.answer = "nak"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_refused_doorbell_whose_look_is_not_answered_gives_its_slot_back(
    engine: Engine, bench: Any, monkeypatch
):
    monkeypatch.setattr(half_open, "UNANSWERED_MS", 1000)
    worker, bell = await bench(), Bell(new_id())

    @asynccontextmanager
    async def unanswered() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(engine.database, "read", unanswered)
    before = worker.receiver.slots.claiming = 1000  # no poll comes in between
    worker.receiver.slots.claiming += 1
    async with asyncio.timeout(WITHIN_S):
        await worker.receiver._claim_reserved([bell])
    assert (worker.receiver.slots.claiming, bell.answer) == (before, "ack")
    monkeypatch.undo()
    worker.receiver.slots.claiming = 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_queues_are_followed_again_after_a_look_that_was_not_answered(
    engine: Engine, bench: Any, monkeypatch
):
    monkeypatch.setattr(half_open, "UNANSWERED_MS", 1000)
    monkeypatch.setattr(child, "QUEUES_S", 0.01)
    worker, looks, by_queue = await bench(), 0, child.by_queue

    async def first_unanswered(connection: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            await asyncio.Event().wait()
        return await by_queue(connection)

    monkeypatch.setattr(child, "by_queue", first_unanswered)
    await engine.enqueue("quick", {"n": 1}, queue="new")
    worker.child.every_queue = True
    follows = asyncio.create_task(worker.child.follows_queues())
    await worker.until(lambda: "new" in worker.child.recorder.scope.queues)
    await end(follows)


async def test_a_priority_of_others_is_left_to_them(engine: Engine, bench: Any):
    worker = await bench(priorities="0-3")
    urgent = await engine.enqueue("quick", {"n": 1}, priority=3)
    later = await engine.enqueue("quick", {"n": 2}, priority=4)
    await worker.ended(urgent)
    await asyncio.sleep(1.2)
    assert (await worker.row(later)).status == "queued"


async def test_a_poll_draws_the_queues_by_their_weights_and_keeps_a_strict_order(engine: Engine, bench: Any):
    worker = await bench()
    asked: list[list[str]] = []

    async def poll(limit: int, queues: list[str], *, rescued: bool) -> list[Any]:
        asked.append(queues)
        return []

    worker.receiver.recorder.poll = poll
    for text, first in (("mail:3,default:1", {"mail", "default"}), ("mail,default", {"mail"})):
        worker.receiver._queues = parse_queues(text)
        asked.clear()
        for _ in range(200):
            await worker.receiver._poll(1)
        assert {queues[0] for queues in asked} == first
        assert all(sorted(queues) == ["default", "mail"] for queues in asked)


async def test_a_poll_that_swallows_its_cancellation_keeps_no_worker_from_leaving(engine: Engine, bench: Any):
    """As a driver does that turns the cancellation of a statement into an error of its own."""
    worker, entered = await bench(), asyncio.Event()

    async def poll(limit: int, queues: list[str], *, rescued: bool) -> list[Any]:
        entered.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            raise OSError("the connection was given up") from error
        return []

    worker.receiver.recorder.poll = poll
    async with asyncio.timeout(WITHIN_S):
        await entered.wait()
        worker.stop.set()
        await worker.task


async def test_a_claim_whose_answer_was_lost_is_adopted(engine: Engine, bench: Any):
    worker = await bench()
    ring = engine.doorbells.ring

    async def lose(bells: Any) -> None: ...

    engine.doorbells.ring = lose
    worker.receiver.slots.claiming += worker.receiver.slots.count  # so that nothing is free
    job_id = await engine.enqueue("quick", {"n": 7})
    scope = Scope(("quick",), ("default",))
    assert len(await claim_ids(engine.database, worker.child.recorder.worker_id, scope, [job_id])) == 1
    worker.receiver.slots.claiming -= worker.receiver.slots.count
    engine.doorbells.ring = ring
    await worker.receiver.reconcile()
    assert worker.receiver.held == []
    await worker.receiver.reconcile()
    row = await worker.ended(job_id)
    assert (row.epoch, row.result) == (1, 7)


async def test_a_job_that_is_no_longer_held_is_stopped_and_its_end_dropped(engine: Engine, bench: Any):
    worker = await bench()
    job_id = await engine.enqueue("wait", {"name": "a"})
    await worker.until(lambda: started == ["a"])
    async with engine.database.transaction() as session:
        await session.execute(
            sa.update(JobLog).where(JobLog.id == job_id).values(epoch=9, worker_id=new_id())
        )
    await worker.receiver.reconcile()
    await worker.until(lambda: not worker.receiver.held)
    assert ((await worker.row(job_id)).status, worker.child.recorder.stale) == ("running", 1)


async def test_a_cancel_message_for_another_epoch_stops_nothing(engine: Engine, bench: Any):
    worker = await bench()
    job_id = await engine.enqueue("wait", {"name": "a"})
    await worker.until(lambda: started == ["a"])
    await engine.doorbells.signal(worker.child.orders.id, {"cancel": str(job_id), "epoch": 0})
    await asyncio.sleep(0.1)
    assert not worker.receiver.held[0].hold.asked
    gates["a"].set()
    await worker.ended(job_id)


async def test_a_paused_job_waits_and_runs_after_the_pause(engine: Engine, bench: Any):
    worker = await bench()

    async def pause(at: Any) -> None:
        async with engine.database.transaction() as session:
            await session.execute(
                sa.update(JobCatalogue).where(JobCatalogue.name == "quick").values(paused_at=at)
            )

    async with engine.database.session() as session:
        now = await engine.database.now(session)
    await pause(now)
    job_id = await engine.enqueue("quick", {"n": 1})
    await asyncio.sleep(1.5)
    assert (await worker.row(job_id)).status == "queued"
    await pause(None)
    await worker.ended(job_id)


async def test_plain_functions_run_in_the_workers_own_threads(engine: Engine, bench: Any):
    worker = await bench()
    assert (await worker.ended(await engine.enqueue("threaded"))).result.startswith("job")


async def test_a_drain_releases_what_does_not_end_in_time_unburnt(engine: Engine, bench: Any):
    worker = await bench()
    worker.receiver.drain_s = 0.2
    job_id = await engine.enqueue("wait", {"name": "a"})
    await worker.until(lambda: started == ["a"])
    worker.stop.set()
    await worker.task
    row = await worker.row(job_id)
    assert (row.status, row.attempt, row.epoch) == ("queued", 0, 2)


async def test_a_drain_fails_what_does_not_end_in_time_and_must_not_run_twice(engine: Engine, bench: Any):
    worker = await bench()
    worker.receiver.drain_s = 0.2
    job_id = await engine.enqueue("wait_once", {"name": "a"})
    await worker.until(lambda: started == ["a"])
    worker.stop.set()
    await worker.task
    row = await worker.row(job_id)
    assert (row.status, row.reason, row.attempt) == ("failed", "worker_lost", 1)


async def test_what_must_not_run_twice_is_put_back_if_its_code_had_not_begun(engine: Engine):
    worker = Bench(engine, 1)
    await worker.child.enter("inline", None)
    job_id = await engine.enqueue("wait_once", {"name": "a"})
    worker.receiver._start(await worker.child.recorder.claim(job_id))
    [execution] = worker.receiver.held
    execution.hold.ask("release")  # in the very step in which it was started
    await execution.task
    await worker.child.recorder.close()
    assert ((await worker.row(job_id)).status, started) == ("queued", [])


async def test_what_a_poll_takes_while_its_worker_stops_is_put_back_and_not_left_behind(
    engine: Engine, bench: Any, monkeypatch: pytest.MonkeyPatch
):
    worker = await bench()
    polled, recorder = asyncio.Event(), worker.receiver.recorder
    poll = recorder.poll

    async def slow(*args: Any, rescued: bool) -> Any:
        """The answer takes longer than the worker takes to hear that it is to stop."""
        found = await poll(*args, rescued=rescued)
        if found:
            polled.set()
            await asyncio.sleep(3600)
        return found

    monkeypatch.setattr(recorder, "poll", slow)
    engine.doorbells.drop = 1.0  # type: ignore[attr-defined]  # so only a poll finds it
    job_id = await engine.enqueue("quick", {"n": 1})
    await asyncio.wait_for(polled.wait(), WITHIN_S)
    worker.stop.set()
    await worker.task
    row = await worker.row(job_id)
    assert (row.status, row.attempt) == ("queued", 0)


async def test_who_drains_in_its_own_time_and_is_hurried_has_that_time_from_then(engine: Engine, bench: Any):
    worker = await bench()
    job_id = await engine.enqueue("wait", {"name": "a"})
    await worker.until(lambda: started == ["a"])
    worker.receiver.let_run(3600)
    worker.stop.set()
    await asyncio.sleep(0.8)
    assert (await worker.row(job_id)).status == "running"
    hurried = time.monotonic()
    worker.receiver.let_run(0.5)
    await worker.task
    assert time.monotonic() - hurried >= 0.5
    assert (await worker.row(job_id)).status == "queued"


async def test_a_database_that_is_away_keeps_no_worker_from_hearing_that_it_is_to_hurry(
    engine: Engine, bench: Any, monkeypatch: pytest.MonkeyPatch
):
    async def away(*_: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(presence, "stopping", away)
    worker, stop, heard = await bench(), Stop(), []
    worker.receiver.let_run = heard.append
    drains = asyncio.create_task(worker.child._drains(stop))
    stop.when_done()
    await worker.until(lambda: heard == [FOR_EVER_S])
    await asyncio.sleep(0.05)
    stop.now()
    await worker.until(lambda: heard == [FOR_EVER_S, DRAIN_S])
    await end(drains)
