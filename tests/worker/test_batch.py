"""A batch is what arrived while the previous one was under way; an error belongs to whom it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from worker.batch import MicroBatch


async def test_what_arrives_during_a_run_goes_together_into_the_next() -> None:
    seen: list[list[int]] = []

    async def run(items: Sequence[int]) -> list[int]:
        seen.append(list(items))
        await asyncio.sleep(0)
        return [item * 2 for item in items]

    batch: MicroBatch[int, int] = MicroBatch(run)
    first = asyncio.create_task(batch.do(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.create_task(batch.do(n)) for n in (2, 3, 4)]
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert seen == [[1], [2, 3, 4]]


async def test_no_batch_is_larger_than_its_limit() -> None:
    sizes: list[int] = []

    async def run(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        return items

    batch: MicroBatch[int, int] = MicroBatch(run, limit=10)
    assert await asyncio.gather(*(batch.do(n) for n in range(25))) == list(range(25))
    assert sizes == [10, 10, 5]


async def test_one_items_error_is_its_own() -> None:
    async def run(items: Sequence[int]) -> list[int | BaseException]:
        return [ValueError(str(item)) if item == 2 else item for item in items]

    batch: MicroBatch[int, int] = MicroBatch(run)
    answers = await asyncio.gather(*(batch.do(n) for n in (1, 2, 3)), return_exceptions=True)
    assert answers[0] == 1
    assert isinstance(answers[1], ValueError)
    assert answers[2] == 3


async def test_a_batch_that_fails_fails_for_all_and_the_next_one_works() -> None:
    broken = True

    async def run(items: Sequence[int]) -> Sequence[int]:
        if broken:
            raise OSError("away")
        return items

    batch: MicroBatch[int, int] = MicroBatch(run)
    answers = await asyncio.gather(batch.do(1), batch.do(2), return_exceptions=True)
    assert all(isinstance(answer, OSError) for answer in answers)
    broken = False
    assert await batch.do(3) == 3


async def test_a_caller_that_gave_up_does_not_disturb_the_others() -> None:
    async def run(items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.01)
        return items

    batch: MicroBatch[int, int] = MicroBatch(run)
    impatient, patient = asyncio.create_task(batch.do(1)), asyncio.create_task(batch.do(2))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await patient == 2
