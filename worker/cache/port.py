"""CacheProtocol: answers that cost something and may be lost at any moment."""

from __future__ import annotations

from typing import Final, Protocol

MAX_BYTES: Final = 1024 * 1024
"""What is larger is not kept."""


class CacheProtocol(Protocol):
    """Bytes under a key for a while. Nothing here raises or waits longer than a tenth of a second.

    A cache that is away answers that it has nothing. Whoever reads must be able to do without, and to bear an answer
    that is as old as it was allowed to become: `forget` is best effort.
    """

    backend: str

    @property
    def connected(self) -> bool: ...

    async def start(self) -> None:
        """Returns at once; a server that is away is waited for in the background."""

    async def stop(self) -> None: ...

    async def get(self, *keys: str) -> list[bytes | None]:
        """What is kept under each key, in order; None for what is not, or not any more."""

    async def put(self, key: str, value: bytes, for_s: float) -> None:
        """Keeps it for this long, or shorter where room is scarce."""

    async def forget(self, *keys: str) -> None: ...
