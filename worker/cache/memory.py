"""InMemoryCache: the cache of one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from worker.cache.port import MAX_BYTES

MOST_BYTES = 32 * MAX_BYTES


class InMemoryCache:
    """Drops what was used longest ago when it holds too much."""

    backend = "memory"
    connected = True

    def __init__(self, most_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    async def start(self) -> None:
        """There is nothing to connect."""

    async def stop(self) -> None:
        self._kept.clear()
        self._bytes = 0

    async def get(self, *keys: str) -> list[bytes | None]:
        return [self._get(key) for key in keys]

    async def put(self, key: str, value: bytes, for_s: float) -> None:
        self._drop(key)
        if len(value) > MAX_BYTES or for_s <= 0:
            return
        self._kept[key] = (self._clock() + for_s, value)
        self._bytes += len(value)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    async def forget(self, *keys: str) -> None:
        for key in keys:
            self._drop(key)

    def _get(self, key: str) -> bytes | None:
        until, value = self._kept.get(key, (0.0, b""))
        if until <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return value

    def _drop(self, key: str) -> None:
        _, value = self._kept.pop(key, (0.0, b""))
        self._bytes -= len(value)
