"""RedisCache: one cache for all processes of a desk, keys `<prefix>:cache:…`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from worker.cache.port import MAX_BYTES
from worker.connections.redis import TROUBLE, RedisLink

log = structlog.get_logger(__name__)

PATIENCE_S = 0.1


class RedisCache:
    """Every key expires by itself, so nothing has to be cleaned up after a process that died."""

    backend = "redis"

    def __init__(self, url: str, prefix: str = "framework") -> None:
        self._prefix = f"{prefix}:cache:"
        self._link = RedisLink.to(url, most=5)

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def start(self) -> None:
        await self._link.start()

    async def stop(self) -> None:
        await self._link.stop()

    async def get(self, *keys: str) -> list[bytes | None]:
        if not keys:
            return []
        found = await self._soon(lambda redis: redis.mget([self._prefix + key for key in keys]))
        return found or [None] * len(keys)

    async def put(self, key: str, value: bytes, for_s: float) -> None:
        if len(value) > MAX_BYTES or for_s <= 0:
            await self.forget(key)
        else:
            for_ms = max(1, round(for_s * 1000))
            await self._soon(lambda redis: redis.set(self._prefix + key, value, px=for_ms))

    async def forget(self, *keys: str) -> None:
        if keys:
            await self._soon(lambda redis: redis.delete(*(self._prefix + key for key in keys)))

    async def _soon(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """The answer, or None where there is none in time."""
        if not self.connected:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await ask(self._link.client)
        except TROUBLE as error:
            log.debug("The cache did not answer", error=repr(error))
            self._link.doubt()
            return None
