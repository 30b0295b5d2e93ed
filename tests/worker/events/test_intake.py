"""What other programs put on the bus enters the outbox, once, and nothing of ours enters it twice."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import nats
import pytest
import sqlalchemy as sa

from tests.worker.events.contract import fresh_prefix
from worker.db.base import new_id, utc_now
from worker.db.session import Database, emit
from worker.events.intake import Intake, row_id_of
from worker.events.memory import InMemoryEventBus
from worker.events.models import OutboxRow
from worker.events.nats import NatsEventBusAdapter
from worker.events.relay import Relay
from worker.events.types import BaseEvent
from worker.live.nats import round_trip


@pytest.fixture
async def database(database_url: str):
    database = Database(database_url)
    yield database
    await database.close()


async def recorded(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection:
        rows = await connection.scalars(sa.select(OutboxRow.events).order_by(OutboxRow.id))
        return [event for events in rows for event in events]


async def until_recorded(database: Database, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        while len(found := await recorded(database)) < count:
            await asyncio.sleep(0.02)
    return found


async def test_a_foreign_event_on_nats_is_recorded_and_announced_and_ours_is_not_again(
    database: Database, nats_server
) -> None:
    prefix, told = fresh_prefix(), []

    async def listen(pending: Any) -> None:
        told.extend(pending.outbox_ids)

    bus = NatsEventBusAdapter(nats_server.url, prefix, ack_wait_s=1.0)
    await Intake(database, bus)()
    async with database.transaction() as session:
        emit(session, "doc.created", {"n": 1})
    assert await Relay(database, bus)() == 1
    database.on_commit = listen
    stranger = await nats.connect(nats_server.url)
    event = {"event_id": str(new_id()), "event_type": "order.placed", "data": {"n": 2}}
    for body in (event, [event]):
        await stranger.publish(f"{prefix}.bus.order.placed", json.dumps(body).encode())
    await round_trip(stranger)
    await stranger.close()
    ours, foreign = await until_recorded(database, 2)
    await database.settle()
    assert (ours["data"], foreign["data"], foreign["event_id"]) == ({"n": 1}, {"n": 2}, event["event_id"])
    assert len(told) == 1
    assert await Relay(database, bus)() in (
        0,
        2,
    )  # a bus that is seconds old may be filled again; no row is new
    assert len(await recorded(database)) == 2
    await bus.stop()


async def test_the_same_event_again_is_the_same_row(database: Database) -> None:
    intake = Intake(database, InMemoryEventBus())
    event = BaseEvent(event_id="mine-1", event_type="order.placed")
    for _ in range(3):
        await intake.take(event)
    assert len(await recorded(database)) == 1
    assert row_id_of(event).version == 7


@pytest.mark.parametrize(
    "event",
    [
        BaseEvent(event_type="job.failed"),
        BaseEvent(event_type="doc.updated", data={"doctype": "User"}),
        BaseEvent(event_type="order.placed", data={"x": "y" * 70_000}),
        BaseEvent(event_type="order.placed", timestamp=utc_now() + timedelta(days=2)),
        BaseEvent(event_type="order.placed", timestamp=utc_now() - timedelta(days=8)),
    ],
    ids=["the engine's", "about people", "too large", "from the future", "too old"],
)
async def test_what_may_not_be_said_from_outside_is_dropped(database: Database, event: BaseEvent) -> None:
    await Intake(database, InMemoryEventBus()).take(event)
    assert await recorded(database) == []


async def test_while_the_database_is_away_it_comes_again(database: Database) -> None:
    bus = InMemoryEventBus()
    intake = Intake(database, bus)
    await intake()
    real, calls = database.transaction, []

    def away() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("away")
        return real()

    database.transaction = away  # type: ignore[method-assign]
    await bus.publish("order.placed", BaseEvent(event_type="order.placed"))
    assert len(await until_recorded(database, 1)) == 1
    await bus.stop()
