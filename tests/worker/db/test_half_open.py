"""A database whose host vanished without closing anything is noticed within seconds."""

from __future__ import annotations

import asyncio
import time

import pytest
import sqlalchemy as sa

from tests.servers.black_hole import BlackHole
from tests.servers.postgres import PostgresServer
from worker.db import half_open
from worker.db.session import Database


@pytest.fixture
async def hole(postgres_server: PostgresServer):
    async with BlackHole(postgres_server.port) as hole:
        yield hole


async def ask(database: Database) -> int:
    async with database.read() as connection:
        return int(await connection.scalar(sa.text("SELECT 1")) or 0)


async def test_connections_into_the_void_are_replaced_all_at_once(
    postgres_server: PostgresServer, hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_open, "RESTED_S", 0.0)
    url = postgres_server.url("postgres").replace(str(postgres_server.port), str(hole.port))
    database = Database(url, pool_size=5)
    assert await asyncio.gather(*(ask(database) for _ in range(5))) == [1] * 5
    hole.swallow()
    hole.open_again()  # what was there is lost, what connects now passes
    began = time.monotonic()
    async with asyncio.timeout(60):
        assert await ask(database) == 1
    found_s = time.monotonic() - began
    began = time.monotonic()
    assert await asyncio.gather(*(ask(database) for _ in range(4))) == [1] * 4
    assert time.monotonic() - began < found_s, "one dead connection says that the others are dead too"
    await database.close()


async def test_a_host_that_does_not_answer_at_all_is_trouble_that_passes(
    postgres_server: PostgresServer, hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_open, "CONNECT_S", 2.0)
    hole.swallow()
    database = Database(postgres_server.url("postgres").replace(str(postgres_server.port), str(hole.port)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await ask(database)
    hole.open_again()
    assert await ask(database) == 1
    await database.close()
