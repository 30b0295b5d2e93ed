"""What was committed reaches the bus, and nothing else does: through kills between the steps and a wiped broker."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from tests.worker.events.contract import Heard, fresh_prefix
from worker.db.session import Database, emit
from worker.errors import BusAway
from worker.events import relay as relay_module
from worker.events.memory import InMemoryEventBus
from worker.events.models import OutboxRow
from worker.events.nats import NatsEventBusAdapter
from worker.events.relay import Relay, messages
from worker.events.takers import hand_over


@pytest.fixture
async def database(database_url: str):
    database = Database(database_url)
    yield database
    await database.close()


async def record(database: Database, *numbers: int, event_type: str = "doc.created") -> None:
    """One transaction with these events."""
    async with database.transaction() as session:
        for n in numbers:
            emit(session, event_type, {"n": n})


async def waiting(database: Database) -> int:
    async with database.read() as connection:
        return await connection.scalar(
            sa.select(sa.func.count()).select_from(OutboxRow).where(OutboxRow.published_at.is_(None))
        )


async def recorded_ids(database: Database) -> set[str]:
    async with database.read() as connection:
        rows = await connection.scalars(sa.select(OutboxRow.events))
        return {event["event_id"] for events in rows for event in events}


async def test_what_was_recorded_arrives_with_its_ids_and_waits_no_more(database: Database) -> None:
    bus, heard = InMemoryEventBus(), Heard()
    await bus.subscribe(">", heard)
    await record(database, 1, 2)
    await record(database, 3, event_type="job.failed")
    relay = Relay(database, bus)
    assert await relay() == 2
    await heard.count(3)
    assert {event.event_id for event in heard.events} == await recorded_ids(database)
    assert await waiting(database) == 0
    assert await relay() == 0
    await bus.stop()


class RecordsWhileAsked:
    """A taker that wants nothing, and while it is asked another process records an event."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def patterns(self, connection: Any) -> Sequence[str]:
        await record(self.database, 2)
        return []

    async def prepare(self, database: Database, events: Any) -> None:
        raise AssertionError("it wants nothing")

    take = prepare


async def test_an_event_recorded_after_the_takers_were_asked_waits_for_the_next(database: Database) -> None:
    await record(database, 1)
    assert await hand_over(database, [RecordsWhileAsked(database)]) == 1
    async with database.read() as connection:
        unmatched = await connection.scalar(
            sa.select(sa.func.count()).select_from(OutboxRow).where(OutboxRow.matched_at.is_(None))
        )
    assert unmatched == 1, "whoever wants it now was not asked about it"


async def test_one_message_for_each_row_and_type_split_where_it_is_too_large(database: Database) -> None:
    async with database.transaction() as session:
        for n in range(3):
            emit(session, "doc.created", {"n": n, "text": "x" * 100_000})
        emit(session, "job.failed", {"n": 3})
        emit(session, "No.Type", {})
    async with database.read() as connection:
        [row] = (await connection.execute(sa.select(OutboxRow.id, OutboxRow.events))).all()
    made = messages([row])
    assert [(message.topic, message.message_id) for message in made] == [
        ("doc.created", f"{row.id}.doc.created.0"),
        ("doc.created", f"{row.id}.doc.created.1"),
        ("job.failed", f"{row.id}.job.failed.0"),
    ]
    assert max(len(message.data) for message in made) <= 256 * 1024
    assert messages([row]) == made


async def test_an_event_that_no_bus_can_carry_holds_up_nothing(database: Database) -> None:
    bus, heard = InMemoryEventBus(), Heard()
    await bus.subscribe(">", heard)
    async with database.transaction() as session:
        emit(session, "No.Type", {})
        emit(session, "doc.huge", {"text": "x" * 1_000_000})
    await record(database, 1)
    assert await Relay(database, bus)() == 2
    await heard.count(1)
    assert heard.numbers == [1]
    await bus.stop()


async def test_while_the_bus_is_away_rows_wait_and_nothing_is_raised(database: Database) -> None:
    class Away(InMemoryEventBus):
        async def publish_many(self, messages: Any) -> None:
            raise BusAway(detail="no answer")

    await record(database, 1)
    relay = Relay(database, Away())
    assert [await relay(), await relay()] == [0, 0]
    assert await waiting(database) == 1


async def test_a_bus_that_hangs_holds_up_nobody_who_waits_for_events(database: Database) -> None:
    class Hangs(InMemoryEventBus):
        async def publish_many(self, messages: Any) -> None:
            begun.set()
            await over.wait()

    begun, over = asyncio.Event(), asyncio.Event()
    await record(database, 1)
    relaying = asyncio.create_task(Relay(database, Hangs())())
    await begun.wait()
    assert await asyncio.wait_for(hand_over(database, []), 10) == 1
    await asyncio.wait_for(record(database, 2), 10)
    assert await asyncio.wait_for(Relay(database, InMemoryEventBus())(), 10) in (0, 2)
    over.set()
    assert await relaying == 1


async def test_two_relays_share_the_rows_and_lose_none(database: Database) -> None:
    bus, heard = InMemoryEventBus(), Heard()
    await bus.subscribe(">", heard)
    for n in range(150):
        await record(database, n)
    first, second = Relay(database, bus), Relay(database, bus)
    while await waiting(database):
        await asyncio.gather(first(), second())
    await heard.count(150)
    assert sorted(heard.numbers) == list(range(150))
    await bus.stop()


STEPS = ("before it publishes", "after it published", "after it marked, before the commit")

KILLED_RELAY = """
import asyncio, os, signal, sys
import sqlalchemy as sa
from worker.db.session import Database
from worker.events import relay
from worker.events.nats import NatsEventBusAdapter

url, nats_url, prefix, step = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Bus(NatsEventBusAdapter):
    async def publish_many(self, messages):
        if step == "before it publishes":
            die()
        await super().publish_many(messages)
        if step == "after it published":
            die()

published = relay._published

async def marked(*args):
    await published(*args)
    die()

relay._published = marked
asyncio.run(relay.Relay(Database(url), Bus(nats_url, prefix))())
"""


@pytest.mark.parametrize("step", STEPS)
async def test_a_relay_that_is_killed_between_its_steps_loses_and_invents_nothing(
    database: Database, nats_server, step: str
) -> None:
    prefix = fresh_prefix()
    bus, heard = NatsEventBusAdapter(nats_server.url, prefix, ack_wait_s=1.0), Heard()
    await bus.subscribe(">", heard, durable="ledger")
    for n in range(5):
        await record(database, n)
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", KILLED_RELAY, database.url, nats_server.url, prefix, step],
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-800:]
    relay = Relay(database, bus)
    while await waiting(database):
        await relay()
    await heard.count(5)
    assert sorted(heard.numbers) == list(range(5))
    assert {event.event_id for event in heard.events} == await recorded_ids(database)
    assert (await bus.stats())["stream"]["messages"] == 5
    await bus.stop()


KILLED_WRITER = """
import asyncio, os, signal, sys
from worker.db.session import Database, emit

async def main():
    database = Database(sys.argv[1])
    async with database.transaction() as session:
        emit(session, "doc.created", {"n": 1})
        await session.flush()
        if sys.argv[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize(("when", "told"), [("before", 0), ("after", 1)])
async def test_a_writer_that_is_killed_has_told_exactly_what_it_committed(
    database: Database, when: str, told: int
) -> None:
    command = [sys.executable, "-c", KILLED_WRITER, database.url, when]
    process = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-800:]
    assert len(await recorded_ids(database)) == told
    assert await Relay(database, InMemoryEventBus())() == told


async def test_a_wiped_broker_gets_again_what_its_subscribers_had_not_had(
    database: Database, own_nats_server
) -> None:
    prefix = fresh_prefix()
    bus, heard = NatsEventBusAdapter(own_nats_server.url, prefix, ack_wait_s=1.0), Heard()
    relay = Relay(database, bus)
    await record(database, 1)
    assert await relay() == 1
    own_nats_server.kill()
    for folder in own_nats_server.folder.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    await record(database, 2)
    assert await relay() == 0  # the bus is away
    own_nats_server.start()
    await bus.subscribe(">", heard, durable="ledger")
    async with asyncio.timeout(30):
        while len(heard.events) < 2:
            await relay()
            await asyncio.sleep(0.05)
    assert sorted(heard.numbers) == [1, 2]
    assert await waiting(database) == 0
    await bus.stop()


async def test_only_what_was_published_shortly_before_is_published_again(database: Database) -> None:
    bus = InMemoryEventBus()
    born = await bus.born()
    for n, ago in enumerate((relay_module.AGAIN_FOR * 2, relay_module.AGAIN_FOR / 2)):
        await record(database, n)
        async with database.transaction() as session:
            await session.execute(
                sa.update(OutboxRow).where(OutboxRow.published_at.is_(None)).values(published_at=born - ago)
            )
    assert await relay_module.publish_again(database, born) == 1
    assert await waiting(database) == 1
