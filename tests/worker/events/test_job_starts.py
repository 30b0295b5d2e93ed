"""`@job(on=…)`: once for each event, whoever looks, and never for ever."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from worker import JobContext, job, testing
from worker.db.base import new_id, utc_now
from worker.db.session import emit
from worker.events.actions import publish_event
from worker.events.job_starts import LONGEST_CHAIN, JobStarts, is_retired
from worker.events.models import OutboxRow
from worker.events.takers import hand_over
from worker.events.types import BaseEvent, DocCreated
from worker.process.models import Worker

seen: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@job(on="doc.*", retry=0)
async def greets(event: dict[str, Any]) -> None:
    seen.append(event)


@job(on="doc.created", retry=0)
async def needs_no_event() -> None:
    seen.append("called")


@job(on="doc.created", retry=0)
async def wants_a_number(event: int) -> None:
    seen.append(event)


@job(on=["job.>", "doc.created"], retry=0)
async def nosy(event: dict[str, Any]) -> None:
    seen.append(event["event_type"])


@job(on="ping.*", retry=0)
async def pings(ctx: JobContext) -> None:
    seen.append("ping")
    await ctx.bus.publish("pong.sent", {})


@job(on="pong.*", retry=0)
async def pongs(ctx: JobContext) -> None:
    seen.append("pong")
    await ctx.bus.publish("ping.sent", {})


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url}


async def tell(desk: testing.Desk, event_type: str = "doc.created", **fields: Any) -> BaseEvent:
    async with desk.engine.database.transaction() as session:
        return publish_event(session, {"event_type": event_type, **fields})


async def add_worker(desk: testing.Desk, jobs: list[str], *, started_at: datetime) -> None:
    """One that has loaded the modules of these tests and can run these jobs."""
    async with desk.engine.database.transaction() as session:
        session.add(
            Worker(
                id=new_id(), kind="worker", host="h", pid=1, modules=[__name__], jobs=jobs,
                started_at=started_at, beat_at=started_at,
            )
        )  # fmt: skip


async def test_an_event_starts_the_job_once_with_the_event_and_its_cause(environ) -> None:
    async with testing.desk(greets, environ=environ) as desk:
        event = await tell(desk, doctype="Todo", doc_id="7", user_id="ada", data={"n": 1})
        await tell(desk, "invoice.paid")
        await desk.run_until_idle()
        await desk.run_until_idle()
        assert seen == [event.as_json()]
        assert isinstance(event, DocCreated)
        [run] = await desk.jobs("greets")
        assert (run.caused_by, run.correlation_id, run.user_id) == (
            f"event:{event.event_id}", event.event_id, "ada",
        )  # fmt: skip


async def test_a_job_that_was_offered_just_before_the_event_is_started(environ) -> None:
    starts = JobStarts()
    async with testing.desk(greets, environ=environ) as desk:
        await tell(desk, "invoice.paid")
        assert await hand_over(desk.engine.database, [starts]) == 1, "nobody wanted it"
        await desk.engine.catalogue.advertise(desk.engine.registry, new_id())
        await tell(desk)
        await hand_over(desk.engine.database, [starts])
        assert len(await desk.jobs("greets")) == 1


async def test_a_job_that_is_offered_again_is_started_by_the_next_event(environ) -> None:
    starts = JobStarts()
    async with testing.desk(greets, environ=environ) as desk:
        await desk.engine.catalogue.advertise(desk.engine.registry, new_id())
        await add_worker(desk, [], started_at=utc_now() - timedelta(minutes=20))
        await tell(desk, "invoice.paid")
        assert await hand_over(desk.engine.database, [starts]) == 1, "nobody offers greets any more"
        await add_worker(desk, ["greets"], started_at=utc_now())
        await tell(desk)
        await hand_over(desk.engine.database, [starts])
        assert len(await desk.jobs("greets")) == 1


async def test_what_a_worker_advertises_is_started_by_a_process_without_its_code(environ) -> None:
    async with testing.desk(greets, needs_no_event, environ=environ) as desk:
        await desk.engine.catalogue.advertise(desk.engine.registry, new_id())
        event = await tell(desk)
        assert await hand_over(desk.engine.database, [JobStarts()]) == 1
        assert sorted((run.job_name, run.args) for run in await desk.jobs()) == [
            ("greets", {"event": event.as_json()}), ("needs_no_event", {}),
        ]  # fmt: skip


async def test_a_job_that_takes_no_event_is_started_all_the_same(environ) -> None:
    async with testing.desk(needs_no_event, environ=environ) as desk:
        await tell(desk)
        await desk.run_until_idle()
        assert seen == ["called"]


async def test_many_lookers_start_it_once_for_each_event(environ) -> None:
    async with testing.desk(greets, environ=environ) as desk:
        for n in range(60):
            await tell(desk, data={"n": n})

        async def look() -> None:
            while await hand_over(desk.engine.database, [JobStarts(desk.engine.registry)]):
                pass

        await asyncio.gather(*(look() for _ in range(4)))
        await desk.run_until_idle()
        assert sorted(event["data"]["n"] for event in seen) == list(range(60))


async def test_what_is_undone_starts_nothing(environ) -> None:
    async with testing.desk(greets, environ=environ) as desk:
        with pytest.raises(RuntimeError, match="no"):  # noqa: PT012 # the transaction is what raises
            async with desk.engine.database.transaction() as session:
                emit(session, "doc.created", {})
                raise RuntimeError("no")
        await desk.run_until_idle()
        assert seen == []


async def test_an_event_that_does_not_fit_starts_that_job_not_and_holds_up_no_other(environ) -> None:
    async with testing.desk(wants_a_number, greets, environ=environ) as desk:
        await tell(desk)
        await desk.run_until_idle()
        assert len(seen) == 1
        async with desk.engine.database.read() as connection:
            left = sa.select(sa.func.count()).select_from(OutboxRow).where(OutboxRow.matched_at.is_(None))
            assert await connection.scalar(left) == 0


async def test_a_full_queue_loses_no_event(environ) -> None:
    async with testing.desk(greets, environ={**environ, "M_QUEUE_MAX_DEPTH": "1"}) as desk:
        for n in range(5):
            await tell(desk, data={"n": n})
        await desk.run_until_idle()
        assert len(seen) == 5


async def test_events_about_its_own_runs_do_not_start_a_job(environ) -> None:
    async with testing.desk(nosy, needs_no_event, environ=environ) as desk:
        await desk.run(needs_no_event)
        seen.remove("called")
        assert sorted(seen) == ["job.queued", "job.started", "job.succeeded"]


async def test_two_jobs_that_wait_for_each_other_come_to_an_end(environ) -> None:
    async with testing.desk(pings, pongs, environ=environ) as desk:
        await tell(desk, "ping.sent")
        await desk.run_until_idle()
        assert len(seen) == LONGEST_CHAIN


@pytest.mark.parametrize("event", [{}, {"event_type": None}, {"event_type": "doc.created", "data": []}, {"event_type": "doc.x", "data": {"job_id": 7}}])  # fmt: skip
async def test_a_strange_event_holds_up_nothing(environ, event) -> None:
    async with testing.desk(greets, environ=environ) as desk:
        async with desk.engine.database.transaction() as session:
            session.add(OutboxRow(events=[event], created_at=utc_now()))
        await tell(desk)
        await desk.run_until_idle()
        assert any(each.get("event_type") == "doc.created" for each in seen)


def test_a_job_that_the_code_has_no_more_is_retired_when_its_module_is_loaded_without_it() -> None:
    now = utc_now()

    def worker(*jobs: str, age: int = 60, module: str = "acme") -> Any:
        return SimpleNamespace(jobs=list(jobs), modules=[module], started_at=now - timedelta(minutes=age))

    assert not is_retired("greets", "acme", [], now)
    assert not is_retired("greets", "acme", [worker("greets")], now)
    assert not is_retired("greets", "acme", [worker(age=5)], now)
    assert not is_retired("greets", "acme", [worker(module="other")], now)
    assert not is_retired("greets", "acme", [worker(), worker("greets")], now)
    assert is_retired("greets", "acme", [worker()], now)
