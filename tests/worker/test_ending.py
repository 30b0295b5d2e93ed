"""Tasks end, also those whose libraries swallow a cancellation."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from worker.ending import EndedUnasked, end, until


async def _goes_on(swallowed: list[int], times: int) -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if len(swallowed) == times:
                raise
            swallowed.append(1)


async def test_a_task_that_swallows_cancellations_is_ended():
    swallowed: list[int] = []
    task = asyncio.create_task(_goes_on(swallowed, 2))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(task, again_s=0.001)
    assert task.cancelled()
    assert len(swallowed) == 2


async def test_an_orderly_end_is_not_cut_short():
    ended: list[str] = []

    async def orderly() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)
        ended.append("in order")

    task = asyncio.create_task(orderly())
    await asyncio.sleep(0)
    await end(task, None)
    assert ended == ["in order"]


async def test_an_error_at_the_end_is_dropped():
    async def breaks() -> None:
        raise ValueError("too late for anybody")

    task = asyncio.create_task(breaks())
    await asyncio.sleep(0)
    await end(task)
    assert task.done()


async def test_what_was_to_go_on_and_has_ended_is_told_with_its_error():
    async def breaks() -> None:
        raise RuntimeError("broken")

    asked = asyncio.Event()
    works = asyncio.create_task(_goes_on([], 0))
    broken = asyncio.create_task(breaks(), name="breaks")
    with pytest.raises(EndedUnasked, match="'breaks' has ended") as told:
        await until(asked, works, broken)
    assert str(told.value.__cause__) == "broken"
    works.cancel()
    with pytest.raises(EndedUnasked) as told:
        await until(asked, works)
    assert told.value.__cause__ is None


async def test_what_ends_when_it_is_asked_to_is_not_told():
    asked = asyncio.Event()
    works = asyncio.create_task(asked.wait())
    asked.set()
    await until(asked, works)
    assert await works
