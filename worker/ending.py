"""Ending tasks that may not hear it the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 1.0


async def end(*tasks: asyncio.Task[Any] | None, again_s: float = AGAIN_S) -> None:
    """Cancels until all have ended; their results and errors are dropped.

    Once is not enough: before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes when its awaitable has just
    finished, and client libraries use it for every command they send. `again_s` is what an orderly end may take.
    """
    while left := {task for task in tasks if task is not None and not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=again_s)
    _heard(tasks)


def _heard(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Nobody else will ask for their errors, and asyncio complains of those that nobody asked for."""
    for task in tasks:
        if task is not None and not task.cancelled():
            task.exception()
