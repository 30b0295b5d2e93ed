"""Names become addresses once for each attempt, in threads that a slow name cannot take from the rest of the process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, Final

from worker.webhooks.addresses import Address

RESOLVE_S: Final = 5.0
THREADS: Final = 32
"""Lookups at once; those of one name share one."""

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class Unresolved(Exception):
    """A name without an address; the text says how that was found out."""


class Resolver:
    """The system's resolver in threads of its own, which a slow name cannot take from the rest of the process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._under_way: dict[str, asyncio.Future[list[Any]]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Every address of `host`.

        Raises:
            Unresolved: it has none, or the answer took longer than RESOLVE_S.
        """
        lookup = self._under_way.get(host)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.run_in_executor(self._threads, _look_up, host)
            self._under_way[host] = lookup
            lookup.add_done_callback(lambda done: self._forget(host, done))
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await asyncio.shield(lookup)
        except TimeoutError:
            raise Unresolved(f"the name {host} was not resolved within {RESOLVE_S:g} s") from None
        except (OSError, UnicodeError) as error:
            raise Unresolved(f"the name {host} has no address: {error}") from None
        return list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, host: str, lookup: asyncio.Future[list[Any]]) -> None:
        del self._under_way[host]
        if not lookup.cancelled():
            lookup.exception()  # heard, also when everybody who asked has gone


def _look_up(host: str) -> list[Any]:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
