"""The event bus on Redis Streams keeps the contract, over crashes of subscribers and outages of the server."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from tests.worker.events.contract import EventBusContract, Heard, fact, fresh_prefix
from tests.worker.events.test_nats_bus import SUBSCRIBER, publish_until_taken
from worker.errors import BusAway

pytest.importorskip("redis")

from tests.servers.valkey import ValkeyServer  # only with the extra
from worker.events.redis import RedisEventBusAdapter


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


@pytest.fixture
def own_valkey_server(valkey_server):
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


def bus_on(server, prefix: str) -> RedisEventBusAdapter:
    return RedisEventBusAdapter(server.url, prefix, ack_wait_s=1.0)


class TestRedisBus(EventBusContract):
    @pytest.fixture
    async def here(self, valkey_server, prefix):
        bus = bus_on(valkey_server, prefix)
        yield bus
        await bus.stop()

    @pytest.fixture
    async def there(self, valkey_server, prefix):
        bus = bus_on(valkey_server, prefix)
        yield bus
        await bus.stop()


async def test_what_a_killed_process_had_taken_reaches_another_of_its_name(valkey_server, prefix):
    code = SUBSCRIBER.replace("NatsEventBusAdapter", "RedisEventBusAdapter").replace(
        "events.nats", "events.redis"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, valkey_server.url, prefix], stdout=subprocess.PIPE, text=True
    )
    assert await asyncio.to_thread(process.stdout.readline) == "there\n"
    bus, heard = bus_on(valkey_server, prefix), Heard()
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


async def test_a_subscription_lives_over_a_server_that_lost_everything(own_valkey_server, prefix):
    bus, named, plain = bus_on(own_valkey_server, prefix), Heard(), Heard()
    await bus.subscribe("doc.*", named, durable="mailer")
    await bus.subscribe("doc.*", plain)
    await bus.publish("doc.created", fact(n=1))
    await named.count(1)
    before = await bus.born()
    own_valkey_server.kill()
    with pytest.raises(BusAway):
        await bus.publish("doc.created", fact(n=2))
    own_valkey_server.start()
    await publish_until_taken(bus, fact(n=3))
    await named.count(2)
    await plain.count(2)
    assert named.numbers == plain.numbers == [1, 3]
    assert await bus.born() > before
    await bus.stop()


async def test_a_message_of_one_id_is_stored_once(valkey_server, prefix):
    from worker.events.handling import encode
    from worker.events.port import Message

    bus = bus_on(valkey_server, prefix)
    for _ in range(3):
        await bus.publish_many([Message("doc.created", encode([fact(n=1)]), "row-1")])
    assert (await bus.stats())["stream"]["messages"] == 1
    await bus.stop()
