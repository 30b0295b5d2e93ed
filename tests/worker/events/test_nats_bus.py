"""The event bus on NATS keeps the contract, over crashes of subscribers and outages of the server."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
import time

import nats
import pytest

from tests.worker.events.contract import EventBusContract, Heard, fact, fresh_prefix, stop_all
from worker.errors import BusAway
from worker.events.nats import NatsEventBusAdapter
from worker.live.nats import round_trip


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


def bus_on(server, prefix: str) -> NatsEventBusAdapter:
    return NatsEventBusAdapter(server.url, prefix, ack_wait_s=1.0)


class TestNatsBus(EventBusContract):
    @pytest.fixture
    async def here(self, nats_server, prefix):
        bus = bus_on(nats_server, prefix)
        yield bus
        await bus.stop()

    @pytest.fixture
    async def there(self, nats_server, prefix):
        bus = bus_on(nats_server, prefix)
        yield bus
        await bus.stop()


SUBSCRIBER = """
import asyncio, sys
from worker.events.nats import NatsEventBusAdapter

async def stuck(event):
    print("got", event.data["n"], flush=True)
    await asyncio.sleep(3600)

async def main():
    bus = NatsEventBusAdapter(sys.argv[1], sys.argv[2], ack_wait_s=1.0)
    await bus.subscribe("doc.*", stuck, durable="mailer")
    print("there", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_what_a_killed_process_had_taken_reaches_another_of_its_name(nats_server, prefix):
    process = subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, nats_server.url, prefix], stdout=subprocess.PIPE, text=True
    )
    assert await asyncio.to_thread(process.stdout.readline) == "there\n"
    bus, heard = bus_on(nats_server, prefix), Heard()
    for n in range(3):
        await bus.publish("doc.created", fact(n=n))
    assert await asyncio.to_thread(process.stdout.readline) == "got 0\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    await bus.subscribe("doc.*", heard, durable="mailer")
    await heard.count(3)
    assert sorted(heard.numbers) == [0, 1, 2]
    await bus.stop()


async def test_a_subscription_lives_over_a_crash_of_the_server(own_nats_server, prefix):
    bus, named, plain = bus_on(own_nats_server, prefix), Heard(), Heard()
    await bus.subscribe("doc.*", named, durable="mailer")
    await bus.subscribe("doc.*", plain)
    await bus.publish("doc.created", fact(n=1))
    await named.count(1)
    own_nats_server.kill()
    with pytest.raises(BusAway):
        await bus.publish("doc.created", fact(n=2))
    own_nats_server.start()
    await publish_until_taken(bus, fact(n=3))
    for heard in (named, plain):  # what was not confirmed may have arrived all the same
        await heard.until(lambda heard: 3 in heard.numbers)
        assert [n for n in heard.numbers if n != 2] == [1, 3]
    await bus.stop()


async def test_a_subscription_lives_over_a_server_that_lost_everything(own_nats_server, prefix):
    bus, named, plain = bus_on(own_nats_server, prefix), Heard(), Heard()
    await bus.subscribe("doc.*", named, durable="mailer")
    await bus.subscribe("doc.*", plain)
    await bus.publish("doc.created", fact(n=1))
    await named.count(1)
    before = await bus.born()
    own_nats_server.kill()
    shutil.rmtree(own_nats_server.folder / "jetstream", ignore_errors=True)
    for folder in own_nats_server.folder.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    own_nats_server.start()
    await publish_until_taken(bus, fact(n=2))
    await named.count(2)
    await plain.count(2)
    assert named.numbers == plain.numbers == [1, 2]
    assert await bus.born() > before
    await bus.stop()


async def test_a_stream_that_somebody_deleted_is_made_again(nats_server, prefix):
    bus, heard = bus_on(nats_server, prefix), Heard()
    await bus.subscribe("doc.*", heard, durable="mailer")
    await bus.publish("doc.created", fact(n=1))
    await heard.count(1)
    await bus.js.delete_stream(bus.stream)
    await bus.publish("doc.created", fact(n=2))
    await heard.count(2)
    await bus.stop()


async def test_subscribing_while_the_server_is_away_misses_nothing_from_then_on(own_nats_server, prefix):
    own_nats_server.stop()
    bus, heard = bus_on(own_nats_server, prefix), Heard()
    began = time.monotonic()
    await bus.subscribe("doc.*", heard)
    assert time.monotonic() - began < 10
    own_nats_server.start()
    await publish_until_taken(bus, fact(n=1))
    await heard.count(1)
    await bus.stop()


async def test_a_strangers_bytes_are_dropped_and_the_next_event_is_heard(nats_server, prefix):
    bus, heard = bus_on(nats_server, prefix), Heard()
    await bus.subscribe(">", heard, durable="mailer")
    stranger = await nats.connect(nats_server.url)
    for data in (
        b"",
        b"\xff",
        b"[1]",
        b'"x"',
        b'[{"event_type": "Doc"}]',
        b"[[" * 5000,
        b'{"event_type":"a.b"}',
    ):
        await stranger.publish(f"{prefix}.bus.doc.created", data)
    await round_trip(stranger)
    await bus.publish("doc.created", fact(n=1))
    await heard.count(2)
    assert [event.event_type for event in heard.events] == ["a.b", "doc.created"]
    await stranger.close()
    await bus.stop()


async def test_what_comes_while_the_process_is_held_up_is_heard_when_it_goes_on(nats_server, prefix):
    bus, heard = NatsEventBusAdapter(nats_server.url, prefix), Heard()
    await bus.subscribe("doc.*", heard, durable="mailer")
    await bus.publish("doc.created", fact(n=0))
    await heard.count(1)

    async def publish() -> None:
        other = bus_on(nats_server, prefix)
        await other.publish("doc.created", fact(n=1))
        await other.stop()

    thread = threading.Thread(target=lambda: asyncio.run(publish()))
    thread.start()
    thread.join()
    time.sleep(5)
    await heard.until(lambda heard: len(heard.events) == 2, 15)
    await bus.stop()


async def test_a_desk_of_another_prefix_hears_nothing(nats_server, prefix):
    here, other = bus_on(nats_server, prefix), bus_on(nats_server, prefix + "x")
    mine, theirs = Heard(), Heard()
    await here.subscribe(">", mine)
    await other.subscribe(">", theirs)
    await here.publish("doc.created", fact(n=1))
    await other.publish("doc.created", fact(n=2))
    await mine.count(1)
    await theirs.count(1)
    assert (mine.numbers, theirs.numbers) == ([1], [2])
    await stop_all(here, other)


async def publish_until_taken(bus, event) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await bus.publish(event.event_type, event)
            except BusAway:
                await asyncio.sleep(0.1)
            else:
                return
