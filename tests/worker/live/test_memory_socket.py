"""The in-memory backplane keeps the contract."""

from __future__ import annotations

import pytest

from tests.worker.live.contract import SocketContract
from worker.live.memory import InMemorySocketAdapter


class TestInMemorySocket(SocketContract):
    @pytest.fixture
    async def here(self):
        socket = InMemorySocketAdapter()
        await socket.start()
        yield socket
        await socket.stop()

    @pytest.fixture
    def there(self, here):
        return here
