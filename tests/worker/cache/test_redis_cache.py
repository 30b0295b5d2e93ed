"""RedisCache keeps the contract on a real Valkey, and a desk without its cache is only slower."""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

import pytest

from tests.servers.valkey import ValkeyServer
from tests.stopwatch import Stopwatch
from tests.worker.cache.contract import CacheContract
from worker.cache import redis
from worker.cache.redis import RedisCache


@pytest.fixture
def prefix() -> str:
    return f"t{uuid4().hex[:8]}"


async def started(url: str, prefix: str) -> RedisCache:
    cache = RedisCache(url, prefix)
    await cache.start()
    async with asyncio.timeout(15):
        while not cache.connected:
            await asyncio.sleep(0.01)
    return cache


class TestRedisCache(CacheContract):
    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch):
        """A machine that stands still for a moment loses nothing."""
        monkeypatch.setattr(redis, "PATIENCE_S", 10.0)

    @pytest.fixture
    async def here(self, valkey_server: ValkeyServer, prefix: str):
        cache = await started(valkey_server.url, prefix)
        yield cache
        await cache.stop()

    @pytest.fixture
    async def there(self, valkey_server: ValkeyServer, prefix: str):
        cache = await started(valkey_server.url, prefix)
        yield cache
        await cache.stop()


async def test_desks_of_two_prefixes_do_not_see_each_other(valkey_server: ValkeyServer, prefix: str):
    one, other = await started(valkey_server.url, prefix), await started(valkey_server.url, prefix + "x")
    await one.put("a", b"1", 30)
    assert await other.get("a") == [None]
    await one.stop()
    await other.stop()


async def test_every_key_expires(valkey_server: ValkeyServer, prefix: str):
    cache = await started(valkey_server.url, prefix)
    await cache.put("a", b"1", 0.0001)
    await cache.put("b", b"1", 30)
    assert 0 < await cache._link.client.pttl(f"{prefix}:cache:b") <= 30_000
    await cache.stop()


async def test_a_server_that_is_away_costs_nothing(own_valkey_server: ValkeyServer, prefix: str):
    cache = await started(own_valkey_server.url, prefix)
    await cache.put("a", b"1", 300)
    own_valkey_server.kill()
    async with Stopwatch() as watch:
        for _ in range(20):
            await cache.put("a", b"2", 300)
            assert await cache.get("a") == [None]
            await cache.forget("a")
    assert watch.seconds < 3
    own_valkey_server.start()
    async with asyncio.timeout(15):
        while await cache.get("a") != [b"3"]:
            await cache.put("a", b"3", 300)
            await asyncio.sleep(0.01)
    await cache.stop()


async def test_a_server_that_hangs_is_not_waited_for(own_valkey_server: ValkeyServer, prefix: str):
    cache = await started(own_valkey_server.url, prefix)
    os.kill(own_valkey_server.process.pid, signal.SIGSTOP)
    try:
        async with Stopwatch() as watch:
            assert await cache.get("a") == [None]
        assert watch.seconds < 2
        async with asyncio.timeout(7.5):
            while cache.connected:
                await asyncio.sleep(0.05)
    finally:
        os.kill(own_valkey_server.process.pid, signal.SIGCONT)
    await cache.stop()
