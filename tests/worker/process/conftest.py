from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.nats import NatsServer
from tests.worker.process.harness import Workers


@pytest.fixture
async def workers(tmp_path: Path, database_url: str, nats_server: NatsServer):
    """Not started: call `start`. Once on SQLite, once on PostgreSQL."""
    async with Workers(tmp_path, database_url, nats_server.url) as workers:
        yield workers


@pytest.fixture
async def sqlite_workers(tmp_path: Path, sqlite_url: str, nats_server: NatsServer):
    async with Workers(tmp_path, sqlite_url, nats_server.url) as workers:
        yield workers
