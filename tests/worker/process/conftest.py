from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.nats import NatsServer
from tests.worker.process.harness import Workers, broker_at


@pytest.fixture(params=["sqlite-nats", "postgresql-nats", "sqlite-redis"])
async def workers(tmp_path: Path, request: pytest.FixtureRequest):
    """Not started: call `start`. On either database with NATS, and on Redis."""
    database, broker = request.param.split("-")
    database_url = request.getfixturevalue(f"{database}_url")
    server = request.getfixturevalue("nats_server" if broker == "nats" else "valkey_server")
    async with Workers(tmp_path, database_url, **broker_at(server)) as workers:
        yield workers


@pytest.fixture
async def sqlite_workers(tmp_path: Path, sqlite_url: str, nats_server: NatsServer):
    async with Workers(tmp_path, sqlite_url, **broker_at(nats_server)) as workers:
        yield workers
