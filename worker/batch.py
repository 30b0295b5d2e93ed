"""Batches without timers: a batch is what arrived while the previous statement was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class MicroBatch(Generic[T, R]):
    """Turns concurrent calls of `do(item)` into calls of `run(items)`, one after the other.

    `run` answers one result per item, in order; an exception instance among them is raised to that caller alone,
    an exception it raises is raised to all callers of the batch.
    """

    def __init__(
        self, run: Callable[[Sequence[T]], Awaitable[Sequence[R | BaseException]]], limit: int = 500
    ) -> None:
        self._run = run
        self._limit = limit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, item: T) -> R:
        """Puts `item` into the next batch and waits for its result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    @property
    def size(self) -> int:
        """How many items wait for the statement under way to end."""
        return len(self._waiting)

    async def drain(self) -> None:
        """Waits until nothing is under way."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._one(batch)
        finally:
            self._task = None

    async def _one(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
