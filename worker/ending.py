"""Ending tasks that may not hear it the first time, and hearing of those that end before they are asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_S = 1.0


class EndedUnasked(Exception):
    """A task has ended that was to go on until somebody ends it. Its cause is the task's error, if it had one."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(f"{task.get_name()!r} has ended, and nobody had asked it to")
        self.__cause__ = None if task.cancelled() else task.exception()


async def until(asked: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Waits for `asked`, while the tasks do their work.

    Raises:
        EndedUnasked: one of the tasks has ended before.
    """
    asking = asyncio.create_task(asked.wait())
    try:
        done, _ = await asyncio.wait({asking, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(asking)
    if not asked.is_set():
        raise EndedUnasked((done - {asking}).pop())


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
