"""RedisDoorbells keeps the contract on a real Valkey, and survives what happens to servers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tests.servers.valkey import ValkeyServer
from tests.stopwatch import Stopwatch
from tests.worker.queue.contract import WITHIN_S, DoorbellsContract, bell, ears
from worker.cache.redis import RedisCache
from worker.connections import redis as connections
from worker.live.redis import RedisSocketAdapter
from worker.queue import redis as module
from worker.queue import redis_pulls
from worker.queue.lanes import Lane, lanes_of
from worker.queue.redis import GROUP, RedisDoorbells, RedisJobBroker

__all__ = ["ears"]

ROOT = Path(__file__).resolve().parents[3]


def make(server: ValkeyServer, prefix: str) -> RedisDoorbells:
    return RedisDoorbells(RedisJobBroker(server.url, prefix), server.url)


async def until(done) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not done():
            await asyncio.sleep(0.01)


async def connected(doorbells: RedisDoorbells) -> RedisDoorbells:
    await until(lambda: doorbells.connected)
    return doorbells


async def heard_after_ringing(here: RedisDoorbells, ear) -> None:
    """Rings until something is heard: what is rung while a server is wiped may be lost."""
    async with asyncio.timeout(WITHIN_S):
        while not ear.heard:
            await here.ring([bell()])
            await asyncio.sleep(0.05)


@pytest.fixture
def prefix() -> str:
    return f"t{uuid4().hex[:8]}"


class TestRedisDoorbells(DoorbellsContract):
    @pytest.fixture
    async def here(self, valkey_server: ValkeyServer, prefix: str):
        doorbells = make(valkey_server, prefix)
        await doorbells.start()
        yield await connected(doorbells)
        await doorbells.stop()

    @pytest.fixture
    async def there(self, valkey_server: ValkeyServer, prefix: str):
        doorbells = make(valkey_server, prefix)
        await doorbells.start()
        yield await connected(doorbells)
        await doorbells.stop()

    async def test_what_was_acknowledged_is_deleted(self, here, there, ears):
        ear = ears(there)
        await here.ring([bell() for _ in range(100)])
        for delivery in (await ear.ids(100), ear.heard)[1]:
            await delivery.ack()
        await there._answers.settle()
        stream = there.broker.stream_of(Lane("default", "normal"))
        assert await here.broker.link.client.xlen(stream) == 0
        assert (await here.broker.link.client.xpending(stream, GROUP))["pending"] == 0

    async def test_an_entry_carries_the_id_and_nothing_else(self, here, there, ears):
        rung = bell()
        await here.ring([rung])
        ((_, fields),) = await here.broker.link.client.xrange(
            here.broker.stream_of(Lane("default", "normal"))
        )
        assert fields == {b"id": str(rung.job_id).encode()}

    async def test_an_entry_that_is_no_doorbell_is_thrown_away(self, here, there, ears):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        client, stream = here.broker.link.client, here.broker.stream_of(Lane("default", "normal"))
        await client.xadd(stream, {"id": "not a, job"})
        await client.xadd(stream, {"data": b"\xff\xfe"})
        last = bell()
        await here.ring([last])
        await ear.until(lambda: ear.heard[-1].job_id == last.job_id)
        for delivery in ear.heard:
            await delivery.ack()
        await there._answers.settle()
        assert await client.xlen(stream) == 0

    async def test_what_a_dead_worker_held_is_heard_by_another(self, here, there, ears, monkeypatch):
        monkeypatch.setattr(module, "RECLAIM_IDLE_MS", 200)
        monkeypatch.setattr(redis_pulls, "RECLAIM_EVERY_S", 0.1)
        dead = ears(here)
        rung = [bell() for _ in range(20)]
        await there.ring(rung)
        await dead.ids(20)
        dead._task.cancel()
        await dead.listener._pulls.close()  # it answers nothing any more
        assert sorted(await ears(there).ids(20)) == sorted(b.job_id for b in rung)

    async def test_a_consumer_that_ends_in_order_leaves_no_trace(
        self, here, there, ears, valkey_server, prefix
    ):
        stays, goes = ears(here), make(valkey_server, prefix)
        await connected_after_start(goes)
        ear = ears(goes)
        await goes.ring([bell()])
        await stays.until(lambda: stays.heard or ear.heard)
        for delivery in [*stays.heard, *ear.heard]:
            await delivery.ack()
        await ear.close()
        await goes.stop()
        client, stream = here.broker.link.client, here.broker.stream_of(Lane("default", "normal"))
        names = {one["name"] for one in await client.xinfo_consumers(stream, GROUP)}
        assert goes.broker.consumer_name.encode() not in names

    async def test_a_consumer_that_died_is_forgotten_after_a_while(self, here, there, ears, monkeypatch):
        monkeypatch.setattr(module, "FORGET_IDLE_MS", 0)
        monkeypatch.setattr(redis_pulls, "RECLAIM_EVERY_S", 0.1)
        client, stream = here.broker.link.client, here.broker.stream_of(Lane("default", "normal"))
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await client.xgroup_createconsumer(stream, GROUP, "died")
        async with asyncio.timeout(WITHIN_S):
            while "died" in str(await client.xinfo_consumers(stream, GROUP)):
                await here.ring([bell()])
                await asyncio.sleep(0.05)

    async def test_too_many_doorbells_are_refused_and_the_oldest_stay(self, here, there, ears, monkeypatch):
        monkeypatch.setattr(module, "MOST_WAITING", 5)
        rung = [bell() for _ in range(8)]
        await here.ring(rung)
        await here.ring([bell()])
        assert await ears(there).ids(5) == [b.job_id for b in rung[:5]]

    async def test_a_wiped_server_is_set_up_again(self, here, there, ears):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await here.broker.link.client.flushall()
        ear.heard.clear()
        await heard_after_ringing(here, ear)

    async def test_a_wiped_group_is_made_again(self, here, there, ears):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        await here.broker.link.client.xgroup_destroy(here.broker.stream_of(Lane("default", "normal")), GROUP)
        ear.heard.clear()
        await heard_after_ringing(here, ear)

    async def test_a_lane_that_is_added_is_heard_at_once(self, here, there, ears):
        ear = ears(there)
        await heard_after_ringing(here, ear)
        lanes = [*lanes_of("default"), *lanes_of("mail")]
        ear.listener._order = lambda: lanes
        ear.listener.add(lanes_of("mail"))
        rung = bell("mail")
        await here.ring([rung])
        await ear.until(lambda: ear.heard[-1].job_id == rung.job_id)

    async def test_a_full_server_costs_doorbells_and_no_error(self, here, there, ears, capsys):
        ear, client = ears(there, slots=0), here.broker.link.client
        held = [bell() for _ in range(3)]
        await here.ring(held)
        await until(lambda: ear.listener._pulls.ready)
        await client.config_set("maxmemory", 1)
        try:
            await here.ring([bell()])
            ear.slots = 10
            ear.free()
            assert await ear.ids(3) == [b.job_id for b in held]
            await ear.heard[0].ack()
            await ear.heard[1].nak()
            await there._answers.settle()
        finally:
            await client.config_set("maxmemory", 0)
        assert "polls find the jobs" in capsys.readouterr().out
        assert await ear.ids(4) == [*(b.job_id for b in held), held[1].job_id]

    async def test_two_thousand_bells_are_all_heard(self, here, there, ears):
        ear = ears(there, slots=100_000)
        for _ in range(20):
            await here.ring([bell() for _ in range(100)])
        await ear.ids(2_000)

    async def test_stats_tell_version_and_what_a_restart_keeps(self, here, there, ears):
        await here.ring([bell()])
        await here.broker.link.client.sadd(
            here.broker.queue_name, b"\xff", "no lane", "default:made-up", "a:b:c"
        )
        stats = await here.stats()
        assert [(one["queue"], one["lane"]) for one in stats["consumers"]] == [("default", "normal")]
        assert (stats["product"], bool(stats["version"])) == ("Valkey", True)
        assert stats["server"]["maxmemory_policy"] == "noeviction"
        assert (stats["server"]["appendonly"], stats["stream"]["messages"]) == (False, 1)
        assert 0 < stats["stream"]["bytes"] < 10_000


async def connected_after_start(doorbells: RedisDoorbells) -> RedisDoorbells:
    await doorbells.start()
    return await connected(doorbells)


async def test_a_read_that_waits_is_woken_when_another_lane_is_wanted(
    valkey_server: ValkeyServer, prefix: str, ears, monkeypatch
):
    monkeypatch.setattr(module, "BLOCK_MS", 60_000)
    monkeypatch.setattr(connections, "SOCKET_TIMEOUT_S", 90.0)
    doorbells = await connected_after_start(make(valkey_server, prefix))
    ear = ears(doorbells, lanes_of("default"))
    await ear.until(lambda: ear.listener._pulls._blocked)
    lanes = [*lanes_of("default"), *lanes_of("mail")]
    ear.listener._order = lambda: lanes
    ear.listener.add(lanes_of("mail"))
    await doorbells.ring([bell("mail")])
    await ear.ids(1)
    await ear.until(lambda: ear.listener._pulls._blocked)
    await asyncio.wait_for(ear.close(), 2)
    await doorbells.stop()


async def test_a_client_that_trips_over_its_own_feet_makes_no_worker_deaf(
    valkey_server: ValkeyServer, prefix: str, ears, monkeypatch
):
    doorbells = await connected_after_start(make(valkey_server, prefix))
    ear = ears(doorbells)
    await heard_after_ringing(doorbells, ear)
    reader = ear.listener._pulls._reader
    take, trips = reader.take, []

    async def trips_twice(streams):
        if len(trips) < 2:
            trips.append(streams)
            raise AttributeError("'NoneType' object has no attribute 'readuntil'")
        return await take(streams)

    monkeypatch.setattr(reader, "take", trips_twice)
    ear.heard.clear()
    await until(lambda: len(trips) == 2)
    await heard_after_ringing(doorbells, ear)
    await ear.close()
    await doorbells.stop()


async def test_a_missing_server_delays_nothing(prefix: str):
    doorbells = RedisDoorbells(RedisJobBroker("redis://127.0.0.1:9", prefix), "redis://127.0.0.1:9")
    async with Stopwatch() as watch:
        await doorbells.start()
        await doorbells.ring([bell()])
        await doorbells.signal(uuid4(), {"drain": True})
        assert (doorbells.connected, (await doorbells.stats())["connected"]) == (False, False)
        await doorbells.stop()
    assert watch.seconds < 3


async def test_an_idle_worker_hears_again_after_the_server_was_killed(
    own_valkey_server: ValkeyServer, prefix: str, ears
):
    here, there = make(own_valkey_server, prefix), make(own_valkey_server, prefix)
    await connected_after_start(here)
    await connected_after_start(there)
    ear = ears(there)
    await heard_after_ringing(here, ear)
    worker, got = uuid4(), []

    async def handler(message):
        got.append(message)

    there.on_signal(worker, handler)
    own_valkey_server.kill()
    await asyncio.sleep(1)
    await here.ring([bell()])
    own_valkey_server.start()
    ear.heard.clear()
    await heard_after_ringing(here, ear)
    async with asyncio.timeout(WITHIN_S):
        while not got:
            await here.signal(worker, {"cancel": "x"})
            await asyncio.sleep(0.05)
    await ear.close()
    await here.stop()
    await there.stop()


async def test_a_worker_that_started_before_its_server_hears(
    own_valkey_server: ValkeyServer, prefix: str, ears
):
    own_valkey_server.stop()
    there = make(own_valkey_server, prefix)
    await there.start()
    ear = ears(there)
    await asyncio.sleep(0.5)
    own_valkey_server.start()
    await connected(there)
    await heard_after_ringing(there, ear)
    await ear.close()
    await there.stop()


async def test_a_server_that_hangs_does_not_hold_the_ringer_and_is_found(
    own_valkey_server: ValkeyServer, prefix: str, ears
):
    doorbells = await connected_after_start(make(own_valkey_server, prefix))
    ear = ears(doorbells)
    await heard_after_ringing(doorbells, ear)
    os.kill(own_valkey_server.process.pid, signal.SIGSTOP)
    before = time.monotonic()
    try:
        await until(lambda: not doorbells.connected)
        found_s = time.monotonic() - before
        before = time.monotonic()
        await doorbells.ring([bell() for _ in range(5000)])
        rung_s = time.monotonic() - before
    finally:
        os.kill(own_valkey_server.process.pid, signal.SIGCONT)
    print(f"found after {found_s:.1f} s, rang in {rung_s:.3f} s")
    ear.heard.clear()
    await connected(doorbells)
    await heard_after_ringing(doorbells, ear)
    await ear.close()
    await doorbells.stop()


async def test_a_password_is_never_logged_nor_shown(prefix: str, capsys):
    url = "redis://desk:s3cr3t-word@127.0.0.1:9/2?password=s3cr3t-word"
    doorbells = RedisDoorbells(RedisJobBroker(url, prefix), url)
    await doorbells.start()
    await asyncio.sleep(0.3)
    stats = await doorbells.stats()
    await doorbells.stop()
    assert stats["url"] == "redis://127.0.0.1:9/2"
    logged = capsys.readouterr()
    assert "127.0.0.1:9" in logged.out + logged.err
    assert "s3cr3t" not in logged.out + logged.err + repr(stats)


async def test_the_rights_that_the_operations_page_names_are_enough(
    own_valkey_server: ValkeyServer, prefix: str, ears
):
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    keys, rights = re.findall(r"\*\*A user of its own\*\* needs `([^`]+)` and `([^`]+)`", page)[0]
    async with Redis.from_url(own_valkey_server.url) as admin:
        allowed = [*keys.replace("framework", prefix).split(), *rights.split()]
        await admin.execute_command("ACL", "SETUSER", "desk", "on", ">w:o/rd", *allowed)
        url = own_valkey_server.url.replace("redis://", "redis://desk:w%3Ao%2Frd@")
        doorbells = await connected_after_start(RedisDoorbells(RedisJobBroker(url, prefix), url))
        live, cache = RedisSocketAdapter(url, prefix), RedisCache(url, prefix)
        await live.start()
        await cache.start()
        ear = ears(doorbells)
        await ear.until(lambda: ear.listener._pulls._blocked)
        ear.listener.add(lanes_of("mail"))
        await heard_after_ringing(doorbells, ear)
        await ear.heard[0].nak()
        await ear.ids(2)
        await ear.heard[1].ack()
        assert (await doorbells.stats())["version"]
        await live.broadcast("changes", {})
        await cache.put("a", b"1", 30)
        await until(lambda: live.connected)
        assert await cache.get("a") == [b"1"]
        await cache.forget("a")
        await ear.close()
        for one in (live, cache, doorbells):
            await one.stop()
        assert await admin.execute_command("ACL", "LOG") == []
