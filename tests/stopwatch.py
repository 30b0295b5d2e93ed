"""How long a loop waited for something, on a machine that may be busy with other things."""

from __future__ import annotations

import asyncio
import time
from typing import Self

TICK_S = 0.01


class Stopwatch:
    """`seconds` from the start of its block to its end, without the time in which this loop itself was held up.

    What is waited for counts in full; a processor that others have taken meanwhile does not.
    """

    seconds: float

    async def __aenter__(self) -> Self:
        self._held_up = 0.0
        self._ticking = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        self._began = time.monotonic()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began - self._held_up
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._held_up += time.monotonic() - due
