"""What CacheProtocol promises, as tests that every adapter runs: `here` and `there` are the caches of two processes."""

from __future__ import annotations

import asyncio

import pytest

from worker.cache.port import MAX_BYTES, CacheProtocol


class CacheContract:
    async def test_what_is_put_is_there_in_another_process(self, here: CacheProtocol, there: CacheProtocol):
        await here.put("a", b"1", 30)
        assert await there.get("a") == [b"1"]

    async def test_several_keys_are_answered_in_order(self, here: CacheProtocol):
        await here.put("b", b"2", 30)
        await here.put("a", b"", 30)
        assert await here.get("a", "missing", "b") == [b"", None, b"2"]
        assert await here.get() == []

    async def test_a_later_value_replaces_an_earlier_one(self, here: CacheProtocol):
        await here.put("a", b"1", 30)
        await here.put("a", b"2", 30)
        assert await here.get("a") == [b"2"]

    async def test_it_is_gone_when_its_time_is_over(self, here: CacheProtocol):
        await here.put("a", b"1", 0.05)
        await here.put("b", b"2", 0)
        async with asyncio.timeout(10):
            while await here.get("a", "b") != [None, None]:
                await asyncio.sleep(0.01)

    async def test_what_is_forgotten_is_forgotten_everywhere(self, here: CacheProtocol, there: CacheProtocol):
        for key in ("a", "b", "c"):
            await here.put(key, b"1", 30)
        await there.forget("a", "b", "never there")
        await there.forget()
        assert await here.get("a", "b", "c") == [None, None, b"1"]

    async def test_any_text_may_be_a_key_and_any_bytes_a_value(self, here: CacheProtocol):
        for key in ("", "a b\r\nSET x 1", "*", "ążść", "k" * 1000):
            await here.put(key, b"\x00\xff\r\n" + key.encode(), 30)
            assert await here.get(key) == [b"\x00\xff\r\n" + key.encode()]

    @pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES + 1])
    async def test_what_is_too_large_is_not_kept_and_hides_what_was_there(
        self, here: CacheProtocol, size: int
    ):
        await here.put("a", b"old", 30)
        await here.put("a", b"x" * size, 30)
        (found,) = await here.get("a")
        assert (found is None) == (size > MAX_BYTES)

    async def test_it_says_that_it_is_connected(self, here: CacheProtocol):
        assert here.connected
