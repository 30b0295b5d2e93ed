"""InMemorySocketAdapter: the backplane of a desk that is one process, and of tests."""

from __future__ import annotations

from worker.live.local import LocalHandlers


class InMemorySocketAdapter(LocalHandlers):
    """Every process is this one, so it is always connected. Tests of two processes give both the same adapter."""

    connected = True

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def stop(self) -> None:
        self._handlers.clear()
