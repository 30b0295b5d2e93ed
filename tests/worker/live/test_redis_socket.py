"""The Redis backplane keeps the contract, and an outage costs freshness only."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid

import pytest
from redis.asyncio import Redis

from tests.stopwatch import Stopwatch
from tests.worker.live.contract import Heard, SocketContract
from worker.live.redis import RedisSocketAdapter


@pytest.fixture
def prefix() -> str:
    return "t" + uuid.uuid4().hex[:12]


async def started(url: str, prefix: str) -> RedisSocketAdapter:
    socket = RedisSocketAdapter(url, prefix)
    await socket.start()
    return socket


async def connected(url: str, prefix: str) -> RedisSocketAdapter:
    """Subscribed too, however busy the machine is."""
    socket = await started(url, prefix)
    await until(lambda: socket.connected)
    return socket


async def until(done, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.01)


class TestRedisSocket(SocketContract):
    @pytest.fixture
    async def here(self, valkey_server, prefix):
        socket = await connected(valkey_server.url, prefix)
        yield socket
        await socket.stop()

    @pytest.fixture
    async def there(self, valkey_server, prefix):
        socket = await connected(valkey_server.url, prefix)
        yield socket
        await socket.stop()


async def test_a_desk_of_another_prefix_hears_nothing(valkey_server, prefix):
    here, same, other = [await started(valkey_server.url, name) for name in (prefix, prefix, prefix + "x")]
    heard, foreign = Heard(same), Heard(other)
    await here.broadcast("changes", {})
    await heard.topics("changes")
    await other.broadcast("end", {})
    assert [topic for topic, _ in foreign.messages] == ["end"]
    for socket in (here, same, other):
        await socket.stop()


async def test_forged_bytes_are_dropped_and_the_next_message_is_heard(valkey_server, prefix):
    socket = await started(valkey_server.url, prefix)
    heard = Heard(socket)
    forger = Redis.from_url(valkey_server.url)
    for data in (
        b"",
        b"\xff\xfe",
        b"[]",
        b'"x"',
        b'{"topic": 1, "message": {}}',
        b'{"topic": "a", "message": []}',
        b"{}",
    ):
        await forger.publish(f"{prefix}:live", data)
    await forger.publish(f"{prefix}:live", b'{"topic": "good", "message": {"a": 1}}')
    await heard.topics("good")
    assert heard.messages == [("good", {"a": 1})]
    await forger.aclose()
    await socket.stop()


async def test_starting_without_a_broker_returns_and_hears_once_it_is_there(own_valkey_server, prefix):
    own_valkey_server.stop()
    began = time.monotonic()
    here = await started(own_valkey_server.url, prefix)
    assert time.monotonic() - began < 5
    assert not here.connected
    mine = Heard(here)
    await here.broadcast("alone", {})
    assert mine.messages == [("alone", {})]
    own_valkey_server.start()
    await until(lambda: here.connected)
    there = await started(own_valkey_server.url, prefix)

    async def both_hear() -> None:
        while not any(topic == "hello" for topic, _ in mine.messages):
            await there.broadcast("hello", {})
            await asyncio.sleep(0.05)

    await asyncio.wait_for(both_hear(), 10)
    await here.stop()
    await there.stop()


async def test_after_an_outage_everyone_is_told_to_re_read(own_valkey_server, prefix):
    here, there = await started(own_valkey_server.url, prefix), await started(own_valkey_server.url, prefix)
    mine, theirs = Heard(here), Heard(there)
    own_valkey_server.kill()
    await until(lambda: not here.connected)
    async with Stopwatch() as watch:
        await here.broadcast("changes", {"lost": True})
    assert watch.seconds < 1
    assert mine.messages == [("changes", {"lost": True})]
    own_valkey_server.start()
    await mine.topics("resync")
    await theirs.topics("resync")
    await until(lambda: here.connected and there.connected)
    await here.broadcast("again", {})
    await theirs.topics("again")
    await here.stop()
    await there.stop()


async def test_one_process_that_was_cut_off_makes_the_others_re_read_what_it_did(valkey_server, prefix):
    here, there = await started(valkey_server.url, prefix), await started(valkey_server.url, prefix)
    theirs = Heard(there)
    here._subscription._pubsub.connection._writer.transport.abort()
    await until(lambda: not here.connected)
    await here.broadcast("changes", {"lost": True})
    await theirs.topics("resync")
    assert there.connected
    await here.stop()
    await there.stop()


async def test_a_message_that_could_not_be_published_makes_the_others_re_read(valkey_server, prefix):
    here, there = await started(valkey_server.url, prefix), await started(valkey_server.url, prefix)
    theirs = Heard(there)
    pipeline, calls = here._link.client.pipeline, []

    def breaks_once(**options):
        calls.append(options)
        if len(calls) == 1:
            raise ConnectionError("the server closed the connection")
        return pipeline(**options)

    here._link.client.pipeline = breaks_once
    await here.broadcast("changes", {"lost": True})
    await theirs.topics("resync")
    assert [topic for topic, _ in theirs.messages] == ["resync"]
    await here.stop()
    await there.stop()


async def test_a_server_that_hangs_delays_nobody_and_is_found(own_valkey_server, prefix):
    here = await started(own_valkey_server.url, prefix)
    os.kill(own_valkey_server.process.pid, signal.SIGSTOP)
    try:
        async with Stopwatch() as watch:
            for number in range(3000):
                await here.broadcast("n", {"n": number})
        assert watch.seconds < 2
        await until(lambda: not here.connected, 7.5)
    finally:
        os.kill(own_valkey_server.process.pid, signal.SIGCONT)
    mine = Heard(here)
    await mine.topics("resync")
    await here.stop()
