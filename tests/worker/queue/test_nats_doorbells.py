"""NatsDoorbells keeps the contract on a real nats-server, and survives what happens to servers."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

import pytest

from tests.servers.nats import NatsServer
from tests.stopwatch import Stopwatch
from tests.worker.queue.contract import WITHIN_S, DoorbellsContract, bell, ears
from worker.queue.nats import NatsDoorbells, NatsJobBroker

__all__ = ["ears"]


def make(server: NatsServer, prefix: str) -> NatsDoorbells:
    return NatsDoorbells(NatsJobBroker(server.url, prefix))


async def connected(doorbells: NatsDoorbells) -> NatsDoorbells:
    async with asyncio.timeout(WITHIN_S):
        while not doorbells.connected:
            await asyncio.sleep(0.01)
    return doorbells


async def heard_after_ringing(here: NatsDoorbells, ear) -> None:
    """Rings until something is heard: what is rung while a stream is being made again may be lost."""
    async with asyncio.timeout(WITHIN_S):
        while not ear.heard:
            await here.ring([bell()])
            await asyncio.sleep(0.05)


@pytest.fixture
def prefix() -> str:
    return f"t{uuid4().hex[:8]}"


class TestNatsDoorbells(DoorbellsContract):
    @pytest.fixture
    async def here(self, nats_server: NatsServer, prefix: str):
        doorbells = make(nats_server, prefix)
        await doorbells.start()
        yield await connected(doorbells)
        await doorbells.stop()

    @pytest.fixture
    async def there(self, nats_server: NatsServer, prefix: str):
        doorbells = make(nats_server, prefix)
        await doorbells.start()
        yield await connected(doorbells)
        await doorbells.stop()

    async def test_the_stream_is_a_work_queue_that_never_drops(self, here, there, ears, prefix):
        await heard_after_ringing(here, ears(there))
        config = (await here.broker.js.stream_info(f"{prefix}_m_jobs")).config
        assert (config.retention, config.discard, config.max_age) == ("workqueue", "new", 0)
        assert config.subjects == [f"{prefix}.jobs.>"]

    async def test_a_message_carries_the_id_and_no_headers(self, here, there, ears, prefix):
        ears(there, slots=0)
        async with asyncio.timeout(WITHIN_S):
            while not (await here.stats()).get("stream"):
                await asyncio.sleep(0.02)
        rung = bell()
        await here.ring([rung])
        message = await here.broker.js.get_last_msg(f"{prefix}_m_jobs", f"{prefix}.jobs.default.normal")
        assert (message.data, message.headers) == (b'{"id":"%s"}' % str(rung.job_id).encode(), None)

    async def test_a_message_that_is_no_doorbell_is_thrown_away(self, here, there, ears, prefix):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await here.broker.js.publish(f"{prefix}.jobs.default.normal", b"\xff not json")
        last = bell()
        await here.ring([last])
        await ear.until(lambda: ear.heard[-1].job_id == last.job_id)

    async def test_a_wiped_stream_is_made_again(self, here, there, ears, prefix):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await here.broker.js.delete_stream(f"{prefix}_m_jobs")
        ear.heard.clear()
        await heard_after_ringing(here, ear)

    async def test_a_wiped_consumer_is_made_again(self, here, there, ears, prefix):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await here.broker.js.delete_consumer(f"{prefix}_m_jobs", "default_normal")
        ear.heard.clear()
        await heard_after_ringing(here, ear)

    async def test_two_thousand_bells_are_all_heard(self, here, there, ears):
        ear = ears(there, slots=100_000)
        for _ in range(20):
            await here.ring([bell() for _ in range(100)])
        await ear.ids(2_000)


async def test_a_missing_server_delays_nothing(prefix: str):
    doorbells = NatsDoorbells(NatsJobBroker("nats://127.0.0.1:9", prefix))
    async with Stopwatch() as watch:
        await doorbells.start()
        await doorbells.ring([bell()])
        await doorbells.signal(uuid4(), {"drain": True})
        assert (doorbells.connected, (await doorbells.stats())["connected"]) == (False, False)
        await doorbells.stop()
    assert watch.seconds < 3


async def test_an_idle_worker_hears_again_after_the_server_was_killed(
    own_nats_server: NatsServer, prefix: str, ears
):
    here, there = make(own_nats_server, prefix), make(own_nats_server, prefix)
    await here.start()
    await there.start()
    await connected(here)
    ear = ears(there)
    await heard_after_ringing(here, ear)
    worker, got = uuid4(), []

    async def handler(message):
        got.append(message)

    there.on_signal(worker, handler)
    own_nats_server.kill()
    await asyncio.sleep(1)
    await here.ring([bell()])
    own_nats_server.start()
    ear.heard.clear()
    await connected(here)
    await connected(there)
    await heard_after_ringing(here, ear)
    async with asyncio.timeout(WITHIN_S):
        while not got:
            await here.signal(worker, {"cancel": "x"})
            await asyncio.sleep(0.05)
    await ear.close()
    await here.stop()
    await there.stop()


async def test_a_worker_that_started_before_its_server_hears(own_nats_server: NatsServer, prefix: str, ears):
    own_nats_server.stop()
    there = make(own_nats_server, prefix)
    await there.start()
    ear = ears(there)
    await asyncio.sleep(0.5)
    own_nats_server.start()
    await connected(there)
    await heard_after_ringing(there, ear)
    await ear.close()
    await there.stop()


async def test_a_broker_that_hangs_does_not_hold_the_ringer(own_nats_server: NatsServer, prefix: str):
    doorbells = make(own_nats_server, prefix)
    await doorbells.start()
    await connected(doorbells)
    await doorbells.ring([bell()])
    os.kill(own_nats_server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(WITHIN_S):
            await doorbells.ring([bell() for _ in range(5000)])
    finally:
        os.kill(own_nats_server.process.pid, signal.SIGCONT)
    await doorbells.stop()
