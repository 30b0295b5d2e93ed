"""A database that is being closed while tasks are cancelled still closes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.servers.postgres import PostgresServer
from worker.db import half_open, sqlite
from worker.db.session import Database, will_pass

LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT max(i) FROM n"
)
"""About a second of SQLite's time."""


async def test_a_connection_that_was_stopped_can_still_be_closed(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        driver.stop()
        with contextlib.suppress(ValueError):  # aiosqlite's word for: it is closed
            await asyncio.wait_for(driver.close(), 10)
    await asyncio.wait_for(database.close(), 10)


async def test_a_closed_database_has_let_go_of_a_connection_that_was_given_up_in_a_statement(
    sqlite_url: str,
) -> None:
    """Its thread would wake a loop that may be closed by then."""
    database = Database(sqlite_url)
    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        counting = asyncio.ensure_future(driver.execute(LONG))
        await asyncio.sleep(0.05)
        driver.stop()
    await asyncio.wait_for(database.close(), 10)
    assert counting.done()
    driver._thread.join(0.5)  # from its last word to its end
    assert not driver._thread.is_alive()
    await counting


async def test_who_waits_for_the_write_lock_looks_for_it_as_often_as_at_first(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own pauses grow to 100 ms, so whoever waited longest came last."""
    database, pauses = Database(sqlite_url), []
    other = sqlite3.connect(sqlite_url.partition(":///")[2], isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 50:
            other.execute("ROLLBACK")

    monkeypatch.setattr(sqlite, "time", SimpleNamespace(sleep=sleep))
    try:
        async with database.transaction() as session:
            assert await session.scalar(sa.text("PRAGMA busy_timeout")) == 5000
        assert len(pauses) == 50
        assert max(pauses) < 0.002
    finally:
        other.close()
        await database.close()


async def test_a_write_lock_that_does_not_come_is_given_up_in_time_and_leaves_the_connection_as_it_was(
    sqlite_url: str,
) -> None:
    database = Database(sqlite_url, lock_timeout_s=0.1)
    async with database.read() as connection:
        assert await connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
    other = sqlite3.connect(sqlite_url.partition(":///")[2], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DBAPIError, match="database is locked") as caught:
            async with database.transaction() as session:
                await session.execute(sa.text("SELECT 1"))
        assert will_pass(caught.value)
        async with database.read() as connection:
            assert await connection.scalar(sa.text("PRAGMA busy_timeout")) == 100
        other.execute("ROLLBACK")
        async with database.transaction() as session:
            assert await session.scalar(sa.text("SELECT 1")) == 1
    finally:
        other.close()
        await database.close()


async def test_a_server_that_takes_no_more_connections_is_trouble_that_passes(
    postgres_server: PostgresServer, postgresql_url: str
) -> None:
    postgres_server.sql("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
    url = postgresql_url.replace("desk@", "narrow@")
    first, second = Database(url), Database(url)
    try:
        async with first.read():
            with pytest.raises(ConnectionError, match="too many connections"):
                async with second.read():
                    pass
        await first.close()
        async with second.read() as connection:
            assert await connection.scalar(sa.text("SELECT 1")) == 1
    finally:
        await first.close()
        await second.close()
        postgres_server.sql("DROP ROLE narrow")


async def test_a_connection_that_the_server_cut_is_not_the_statements_fault(
    postgres_server: PostgresServer, postgresql_url: str
) -> None:
    database = Database(postgresql_url)
    try:
        async with database.read() as connection:
            pid = await connection.scalar(sa.text("SELECT pg_backend_pid()"))
            postgres_server.sql(f"SELECT pg_terminate_backend({pid})")
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(sa.text("SELECT 1"))
            assert will_pass(caught.value)
        async with database.read() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(sa.text("SELECT 1/0"))
            assert not will_pass(caught.value)
    finally:
        await database.close()


async def test_a_transaction_that_stands_still_is_ended_by_the_server_and_lets_go_of_its_locks(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that froze in the middle of one would keep its own jobs from being taken over."""
    monkeypatch.setattr(half_open, "IDLE_MS", 300)
    frozen, other = Database(postgresql_url), Database(postgresql_url)
    locks = sa.text("SELECT pg_advisory_xact_lock(7)")

    async def stands_still() -> None:
        async with frozen.transaction() as session:
            await session.execute(locks)
            async with other.transaction() as another:
                await another.execute(locks)
            await session.execute(locks)

    try:
        with pytest.raises(DBAPIError) as caught:
            await stands_still()
        assert will_pass(caught.value)
        async with frozen.transaction() as session:
            await session.execute(locks)
    finally:
        await frozen.close()
        await other.close()
