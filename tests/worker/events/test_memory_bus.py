"""The event bus in memory keeps the contract."""

from __future__ import annotations

import pytest

from tests.worker.events.contract import EventBusContract
from worker.events.memory import InMemoryEventBus


class TestMemoryBus(EventBusContract):
    @pytest.fixture
    async def here(self):
        bus = InMemoryEventBus()
        yield bus
        await bus.stop()

    @pytest.fixture
    def there(self, here):
        return here
