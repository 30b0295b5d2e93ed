"""The servers that other tests rely on are what they say: real, fresh, and the same again after a crash."""

from __future__ import annotations

import contextlib
import socket

import nats
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers import free_port
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer


async def test_a_killed_nats_server_comes_back_at_its_address_with_what_was_stored(
    own_nats_server: NatsServer,
) -> None:
    connection = await nats.connect(own_nats_server.url)
    await connection.jetstream().add_stream(name="kept", subjects=["kept"])
    await connection.jetstream().publish("kept", b"one")
    await connection.close()
    url = own_nats_server.url
    own_nats_server.kill()
    own_nats_server.start()
    assert own_nats_server.url == url
    connection = await nats.connect(url)
    assert (await connection.jetstream().stream_info("kept")).state.messages == 1
    await connection.close()


async def test_a_stranger_without_the_token_is_refused(nats_server: NatsServer) -> None:
    address = f"nats://wrong@127.0.0.1:{nats_server.port}"
    stranger = nats.NATS()
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await stranger.connect(address, allow_reconnect=False, max_reconnect_attempts=0, connect_timeout=20)
    stranger._transport.close()  # the library leaves it open
    with contextlib.suppress(ConnectionResetError):  # the server may have been quicker
        await stranger._transport.wait_closed()


async def test_every_database_is_empty_and_takes_writes(empty_database_url: str) -> None:
    engine = create_async_engine(empty_database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE first (id INTEGER PRIMARY KEY)"))
        assert (await connection.execute(text("SELECT count(*) FROM first"))).scalar() == 0
    await engine.dispose()


def test_a_crashed_postgres_keeps_what_was_committed(own_postgres_server: PostgresServer) -> None:
    url = own_postgres_server.database()
    own_postgres_server.sql("CREATE TABLE kept AS SELECT 7 AS seven", own_postgres_server.name(url))
    own_postgres_server.kill()
    own_postgres_server.start()
    assert own_postgres_server.sql("SELECT seven FROM kept", own_postgres_server.name(url)) == "7"


def test_valkey_answers_and_is_empty(valkey_server: ValkeyServer, valkey_url: str) -> None:
    with socket.create_connection(("127.0.0.1", valkey_server.port)) as connection:
        connection.sendall(b"DBSIZE\r\n")
        assert connection.recv(16) == b":0\r\n"
    assert valkey_url.startswith("redis://127.0.0.1:")


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
