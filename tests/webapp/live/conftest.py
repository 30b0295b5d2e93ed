"""One web process, or two that share a database and a broker."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.webapp.live.site import Site, site


@pytest.fixture
async def one(sqlite_url: str, tmp_path: Path):
    """A web process on SQLite, without a broker."""
    async with site(sqlite_url, tmp_path) as made:
        yield made


@pytest.fixture
async def two(database_url: str, nats_server, tmp_path: Path):
    """Two web processes on one database, once on each kind, with a real broker between them."""
    prefix = "t" + uuid.uuid4().hex[:12]
    async with (
        site(database_url, tmp_path, nats_url=nats_server.url, prefix=prefix) as here,
        site(database_url, tmp_path, nats_url=nats_server.url, prefix=prefix) as there,
    ):
        yield here, there


__all__ = ["Site"]
