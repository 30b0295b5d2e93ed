"""Connections to PostgreSQL whose other end is gone without a word: a host that lost its power, a firewall that forgot.

Nothing answers there and nothing fails, so a connection that has rested is asked first, and is not waited for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

CONNECT_S = 5.0
ANSWER_S = 3.0
"""How long a connection that has rested may take to show that it lives."""
RESTED_S = 1.0
"""One that was used this recently is not asked: a batch would wait for three more round trips."""
IDLE_MS = 10_000
"""A transaction that stands still for so long is ended by the server: a host that froze or vanished in the middle of one would
keep its locks, and with them its own jobs from being taken over. Less than a lease (PostgreSQL, idle_in_transaction_session_timeout)."""
UNANSWERED_MS = 7000
KEEPALIVE = {"TCP_KEEPIDLE": 3, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": UNANSWERED_MS}
"""What the kernel does about packets that nobody acknowledges, also in the middle of a statement; where it can."""


def watch(engine: sa.Engine) -> None:
    """Makes the pool of `engine` find its dead connections; one that is found means that all may be dead."""

    @event.listens_for(engine, "connect")
    def _connected(dbapi: Any, _record: Any) -> None:
        transport = getattr(dbapi.driver_connection, "_transport", None)
        keep_alive(transport.get_extra_info("socket") if transport is not None else None)
        dbapi.run_async(_bound_its_transactions)

    @event.listens_for(engine, "checkin")
    def _rests(_dbapi: Any, record: Any) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ask(dbapi: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get("rests_since")
        if since is None or time.monotonic() - since < RESTED_S:
            return
        try:
            dbapi.run_async(_answers)
        except Exception as error:
            raise sa.exc.InvalidatePoolError(
                f"a connection that had rested did not answer: {error!r}"
            ) from error


def keep_alive(connection: Any) -> None:
    """Sets what this system has of it; a Unix socket has none."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


@contextlib.contextmanager
def told_why() -> Iterator[None]:
    """Around a transaction of somebody else's code: the driver says only that the connection is closed."""
    began = time.monotonic()
    try:
        yield
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated and (lasted_s := time.monotonic() - began) * 1000 > IDLE_MS:
            error.add_note(
                f"The block had its transaction for {lasted_s:.1f} s. PostgreSQL ends one in which nothing is asked for "
                f"{IDLE_MS / 1000:g} s: do what is slow before or after it."
            )
        raise


async def _bound_its_transactions(connection: Any) -> None:
    await connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MS}")


async def _answers(connection: Any) -> None:
    async with asyncio.timeout(ANSWER_S):
        await connection.execute("")
