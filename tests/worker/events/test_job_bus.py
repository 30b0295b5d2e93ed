"""What a job publishes is recorded with its other writes, and what it subscribes to arrives."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import sqlalchemy as sa

from worker import JobContext, job, testing
from worker.db.base import new_id, utc_now
from worker.db.session import emit
from worker.events.models import OutboxRow
from worker.events.types import BaseEvent, DocCreated
from worker.joblogs.models import JobLog
from worker.jobs.models import Queue


@job(retry=0)
async def pays(ctx: JobContext, topic: str = "invoice.paid", lost: bool = False) -> str:
    if lost:
        async with ctx.engine.database.transaction() as session:
            await session.execute(
                sa.update(JobLog).where(JobLog.id == ctx.job_id).values(epoch=JobLog.epoch + 1)
            )
    return await ctx.bus.publish(topic, {"number": 7})


@job(retry=0)
def pays_in_a_thread(ctx: JobContext) -> str:
    return ctx.bus.publish("doc.created", DocCreated(doctype="Invoice", doc_id="7")).result()


@job(retry=0)
async def pays_and_fails(ctx: JobContext) -> None:
    async with ctx.session() as session:
        await ctx.bus.publish("invoice.paid", {}, session=session)
        raise RuntimeError("after all not")


@job(retry=0)
async def hears(ctx: JobContext) -> list[str]:
    heard: list[str] = []

    async def handler(event: BaseEvent) -> None:
        heard.append(event.event_type)

    subscription = await ctx.bus.subscribe("invoice.*", handler)
    await ctx.engine.bus.publish("invoice.paid", BaseEvent(event_type="invoice.paid"))
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.01)
    await subscription.stop()
    return heard


async def recorded(desk: testing.Desk) -> list[dict[str, Any]]:
    async with desk.engine.database.read() as connection:
        rows = await connection.scalars(sa.select(OutboxRow.events).order_by(OutboxRow.id))
        return [event for events in rows for event in events if not event["event_type"].startswith("job.")]


async def test_a_job_publishes_an_event() -> None:
    async with testing.desk(pays) as desk:
        ended = await desk.run(pays)
        [event] = await recorded(desk)
        assert (event["event_id"], event["event_type"], event["data"]) == (
            ended.result, "invoice.paid", {"number": 7},
        )  # fmt: skip


async def test_a_plain_function_publishes_from_its_thread() -> None:
    async with testing.desk(pays_in_a_thread) as desk:
        ended = await desk.run(pays_in_a_thread)
        [event] = await recorded(desk)
        assert (event["event_id"], event["doctype"], event["doc_id"]) == (ended.result, "Invoice", "7")


async def test_what_is_undone_was_not_told() -> None:
    async with testing.desk(pays_and_fails) as desk:
        assert (await desk.run(pays_and_fails)).status == "failed"
        assert await recorded(desk) == []


async def test_a_late_execution_tells_nothing() -> None:
    async with testing.desk(pays) as desk:
        await desk.run(pays, lost=True)
        assert await recorded(desk) == []


@pytest.mark.parametrize("topic", ["job.failed", "webhook.disabled", "Invoice.paid", "invoice.*"])
async def test_what_a_job_may_not_say_fails_it_with_the_reason(topic: str) -> None:
    async with testing.desk(pays) as desk:
        ended = await desk.run(pays, topic=topic)
        assert ended.status == "failed"
        assert topic in (ended.error or "")
        assert await recorded(desk) == []


async def test_a_job_hears_the_bus() -> None:
    async with testing.desk(hears) as desk:
        assert (await desk.run(hears)).result == ["invoice.paid"]


# Savepoints, on both databases


async def test_what_a_savepoint_undid_is_not_told(database_url: str) -> None:
    async with testing.desk(environ={"DATABASE_URL": database_url}) as desk:
        async with desk.engine.database.transaction() as session:
            emit(session, "doc.first", {})
            with contextlib.suppress(RuntimeError):
                async with session.begin_nested():
                    emit(session, "doc.undone", {})
                    session.add(_queue())
                    raise RuntimeError("back")
            async with session.begin_nested():
                emit(session, "doc.kept", {})
        assert [event["event_type"] for event in await recorded(desk)] == ["doc.first", "doc.kept"]


async def test_nothing_is_announced_before_the_whole_transaction_is_committed(database_url: str) -> None:
    async with testing.desk(environ={"DATABASE_URL": database_url}) as desk:
        told: list[Any] = []

        async def listen(pending: Any) -> None:
            told.append(pending)

        desk.engine.database.on_commit = listen
        async with desk.engine.database.transaction() as session:
            emit(session, "doc.first", {})
            async with session.begin_nested():
                session.add(_queue())
            await desk.engine.database.settle()
            assert told == []
        await desk.engine.database.settle()
        [pending] = told
        assert len(pending.outbox_ids) == 1


def _queue() -> Queue:
    return Queue(name=new_id().hex, created_at=utc_now())
