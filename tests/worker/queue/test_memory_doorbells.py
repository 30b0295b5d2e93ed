"""MemoryDoorbells keeps the contract; both "processes" are one."""

from __future__ import annotations

import pytest

from tests.worker.queue.contract import DoorbellsContract, bell, ears
from worker.queue.lanes import Lane
from worker.queue.memory import MemoryDoorbells

__all__ = ["ears"]


class TestMemoryDoorbells(DoorbellsContract):
    @pytest.fixture
    async def here(self):
        doorbells = MemoryDoorbells()
        await doorbells.start()
        yield doorbells
        await doorbells.stop()

    @pytest.fixture
    def there(self, here):
        return here


async def test_it_can_be_told_to_lose_everything():
    doorbells = MemoryDoorbells(drop=1.0)
    await doorbells.ring([bell()])
    assert not doorbells.waiting(Lane("default", "normal"))
