"""The NATS backplane keeps the contract, and an outage costs freshness only."""

from __future__ import annotations

import asyncio
import time
import uuid

import nats
import pytest

from tests.stopwatch import Stopwatch
from tests.worker.live.contract import Heard, SocketContract
from worker.live.nats import NatsSocketAdapter, round_trip
from worker.live.port import RESYNC


@pytest.fixture
def prefix() -> str:
    return "t" + uuid.uuid4().hex[:12]


async def started(url: str, prefix: str) -> NatsSocketAdapter:
    socket = NatsSocketAdapter(url, prefix)
    await socket.start()
    return socket


async def connected(url: str, prefix: str) -> NatsSocketAdapter:
    """Subscribed too, however busy the machine is."""
    socket = await started(url, prefix)
    await asyncio.wait_for(socket._connecting, 15)
    return socket


async def until(done, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.01)


class TestNatsSocket(SocketContract):
    @pytest.fixture
    async def here(self, nats_server, prefix):
        socket = await connected(nats_server.url, prefix)
        yield socket
        await socket.stop()

    @pytest.fixture
    async def there(self, nats_server, prefix):
        socket = await connected(nats_server.url, prefix)
        yield socket
        await socket.stop()


async def test_a_desk_of_another_prefix_hears_nothing(nats_server, prefix):
    here, same, other = [await started(nats_server.url, name) for name in (prefix, prefix, prefix + "x")]
    heard, foreign = Heard(same), Heard(other)
    await here.broadcast("changes", {})
    await heard.topics("changes")
    await other.broadcast("end", {})
    assert [topic for topic, _ in foreign.messages] == ["end"]
    for socket in (here, same, other):
        await socket.stop()


async def test_forged_bytes_are_dropped_and_the_next_message_is_heard(nats_server, prefix):
    socket = await started(nats_server.url, prefix)
    heard = Heard(socket)
    forger = await nats.connect(nats_server.url)
    for data in (
        b"",
        b"\xff\xfe",
        b"[]",
        b'"x"',
        b'{"topic": 1, "message": {}}',
        b'{"topic": "a", "message": []}',
        b"{}",
    ):
        await forger.publish(f"{prefix}.live.changes", data)
    await forger.publish(f"{prefix}.live.changes", b'{"topic": "good", "message": {"a": 1}}')
    await heard.topics("good")
    assert heard.messages == [("good", {"a": 1})]
    await forger.close()
    await socket.stop()


async def test_starting_without_a_broker_returns_and_hears_once_it_is_there(own_nats_server, prefix):
    own_nats_server.stop()
    began = time.monotonic()
    here = await started(own_nats_server.url, prefix)
    assert time.monotonic() - began < 5
    assert not here.connected
    mine = Heard(here)
    await here.broadcast("alone", {})
    assert mine.messages == [("alone", {})]
    own_nats_server.start()
    await until(lambda: RESYNC in [topic for topic, _ in mine.messages])  # what others did meanwhile
    there = await started(own_nats_server.url, prefix)

    async def both_hear() -> None:
        while not any(topic == "hello" for topic, _ in mine.messages):
            await there.broadcast("hello", {})
            await asyncio.sleep(0.05)

    await asyncio.wait_for(both_hear(), 10)
    await here.stop()
    await there.stop()


async def test_after_an_outage_everyone_is_told_to_re_read(own_nats_server, prefix):
    here, there = await started(own_nats_server.url, prefix), await started(own_nats_server.url, prefix)
    mine, theirs = Heard(here), Heard(there)
    own_nats_server.kill()
    await until(lambda: not here.connected)
    async with Stopwatch() as watch:
        await here.broadcast("changes", {"lost": True})
    assert watch.seconds < 1
    assert mine.messages == [("changes", {"lost": True})]
    own_nats_server.start()
    await mine.topics("resync")
    await theirs.topics("resync")
    await until(lambda: here.connected and there.connected)
    await here.broadcast("again", {})
    await theirs.topics("again")
    await here.stop()
    await there.stop()


async def test_one_process_that_was_cut_off_makes_the_others_re_read_what_it_did(nats_server, prefix):
    here, there = await started(nats_server.url, prefix), await started(nats_server.url, prefix)
    theirs = Heard(there)
    here._client._transport._io_writer.transport.abort()
    await until(lambda: not here.connected)
    await here.broadcast("changes", {"lost": True})
    await theirs.topics("resync")
    assert there.connected
    await here.stop()
    await there.stop()


async def test_a_round_trip_is_behind_all_that_was_sent_before_it(nats_server, prefix):
    sender, reader = await nats.connect(nats_server.url), await nats.connect(nats_server.url)
    heard: list[bytes] = []

    async def take(message) -> None:
        heard.append(message.data)

    await reader.subscribe(prefix, cb=take)
    await round_trip(reader)
    for number in range(200):
        await sender.publish(prefix, b"%d" % number)
        await round_trip(sender)
        await round_trip(reader)
        await asyncio.sleep(0)  # the reader's own task takes it
        assert len(heard) == number + 1
    await sender.close()
    await reader.close()
