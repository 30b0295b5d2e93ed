"""Answers that many readers share for a moment: within this process, and between all of a desk where there is a Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final
from uuid import uuid4

import msgspec

from worker.cache.port import CacheProtocol

MOST_KEPT: Final = 500
GENERATION: Final = "generation"
GENERATION_S: Final = 3600.0
"""Longer than any answer is kept."""


class Shared(msgspec.Struct, array_like=True):
    """An answer as it lies in the cache. It counts only in the generation in which it was asked for."""

    generation: str
    until: float
    answer: Any


class Cached:
    """Remembers answers for a while; callers that meet wait for the one that asks. One per process, on the app."""

    def __init__(self, cache: CacheProtocol | None = None) -> None:
        """A cache of this process alone would only keep everything twice."""
        self._cache = cache if cache is not None and cache.backend != "memory" else None
        self._kept: dict[Hashable, tuple[float, Any]] = {}
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._forgot_at = 0.0

    async def forget(self) -> None:
        """After somebody acted here: who acts sees what it did, and other processes ask anew for what they share."""
        self._kept.clear()
        self._forgot_at = time.time()
        if self._cache is not None:
            await self._cache.put(GENERATION, uuid4().hex.encode(), GENERATION_S)

    async def get(
        self, key: Hashable, for_s: float, ask: Callable[[], Awaitable[Any]], shared_as: Any = None
    ) -> Any:
        """With `shared_as`, the type of the answer, one process asks for all; `key` is then a string."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            kept = self._kept.get(key)
            if kept is not None and kept[0] > time.monotonic():
                return kept[1]
            if self._cache is None or shared_as is None:
                answer, left_s = await ask(), for_s
            else:
                answer, left_s = await _share(self._cache, str(key), for_s, ask, shared_as, self._forgot_at)
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
                self._locks = {key: self._locks[key]}
            self._kept[key] = (time.monotonic() + left_s, answer)
            return answer


async def _share(
    cache: CacheProtocol, key: str, for_s: float, ask: Callable[[], Awaitable[Any]], kind: Any, since: float
) -> tuple[Any, float]:
    """The answer that any process asked for, and for how long it still holds.

    One from before `since` is passed over, although the generation says that it counts: its change may have been lost.
    """
    generation, found = await cache.get(GENERATION, f"answer {key}")
    name = (generation or b"").decode(errors="replace")
    if found is not None:
        try:
            shared = msgspec.json.decode(found, type=Shared)
            left_s = shared.until - time.time()
            asked_at = shared.until - for_s
            if shared.generation == name and 0 < left_s <= for_s and asked_at > since:
                return msgspec.convert(shared.answer, kind), left_s
        except (msgspec.MsgspecError, ValueError):
            pass  # of another version of this program: ask
    answer = await ask()
    await cache.put(f"answer {key}", msgspec.json.encode(Shared(name, time.time() + for_s, answer)), for_s)
    return answer, for_s
