"""InMemoryCache keeps the contract, and holds no more than it may."""

from __future__ import annotations

import pytest

from tests.worker.cache.contract import CacheContract
from worker.cache.memory import InMemoryCache


class TestInMemoryCache(CacheContract):
    @pytest.fixture
    async def here(self):
        cache = InMemoryCache()
        await cache.start()
        yield cache
        await cache.stop()

    @pytest.fixture
    def there(self, here):
        return here


async def test_what_was_used_longest_ago_goes_first():
    cache = InMemoryCache(most_bytes=30)
    for key in ("a", "b", "c"):
        await cache.put(key, b"x" * 10, 30)
    await cache.get("a")
    await cache.put("d", b"x" * 10, 30)
    assert [value is not None for value in await cache.get("a", "b", "c", "d")] == [True, False, True, True]


async def test_time_is_the_clocks():
    now = [100.0]
    cache = InMemoryCache(clock=lambda: now[0])
    await cache.put("a", b"1", 5)
    now[0] = 104.9
    assert await cache.get("a") == [b"1"]
    now[0] = 105.0
    assert await cache.get("a") == [None]
