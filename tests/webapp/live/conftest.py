"""One web process, or two that share a database and a broker."""

from __future__ import annotations

import uuid
from functools import cache
from pathlib import Path

import pytest

from tests.webapp.live.site import Site, site
from webapp import render
from webapp.paths import folder
from webapp.static import StaticFiles


@pytest.fixture(scope="session", autouse=True)
def one_environment():
    """Compiles the templates once for all the applications of this test run: they are the same files."""
    patch = pytest.MonkeyPatch()
    patch.setattr(render, "make_environment", cache(render.make_environment))
    static = StaticFiles(folder("static"))
    patch.setattr("webapp.app.StaticFiles", lambda _: static)
    yield
    patch.undo()


@pytest.fixture
async def one(sqlite_url: str, tmp_path: Path):
    """A web process on SQLite, without a broker."""
    async with site(sqlite_url, tmp_path) as made:
        yield made


@pytest.fixture
async def two(database_url: str, nats_server, tmp_path: Path):
    """Two web processes on one database, once on each kind, with NATS between them."""
    prefix = "t" + uuid.uuid4().hex[:12]
    async with (
        site(database_url, tmp_path, nats_url=nats_server.url, prefix=prefix) as here,
        site(database_url, tmp_path, nats_url=nats_server.url, prefix=prefix) as there,
    ):
        yield here, there


@pytest.fixture
async def two_on_redis(sqlite_url: str, valkey_server, tmp_path: Path):
    """Two web processes with Redis between them."""
    prefix = "t" + uuid.uuid4().hex[:12]
    async with (
        site(sqlite_url, tmp_path, redis_url=valkey_server.url, prefix=prefix) as here,
        site(sqlite_url, tmp_path, redis_url=valkey_server.url, prefix=prefix) as there,
    ):
        yield here, there


__all__ = ["Site"]
