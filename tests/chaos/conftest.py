"""Sites, seeds and sizes for the scenarios; the table of results at the end of a run."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.report import Report, table
from tests.chaos.site import FULL, Site
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
MakeSite = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            if sys.platform != "linux":
                item.add_marker(pytest.mark.skip("only on Linux: processes are found in /proc"))


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether the scenarios run in their full size."""
    return FULL


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """Printed with a failure and with the results; CHAOS_SEED gives the same again."""
    print(f"seed {SEED}: CHAOS_SEED={SEED} replays the plan")
    record_property("seed", SEED)
    return SEED


@pytest.fixture
def report(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Report:
    """Figures said to it stand in the table at the end of the run."""
    return Report(request.node.name, record_property)


@pytest.fixture
def any_database(request: pytest.FixtureRequest) -> str:
    """Given by `on`."""
    return str(request.param)


@pytest.fixture
def any_broker(request: pytest.FixtureRequest) -> str:
    """NATS, unless a scenario says otherwise."""
    return str(getattr(request, "param", "nats"))


@pytest.fixture
async def site(
    any_database: str, tmp_path: Path, nats_server: NatsServer, request: pytest.FixtureRequest
) -> AsyncIterator[MakeSite]:
    """Call it for a site whose servers others share: workers may be struck, servers not. Say `@on(...)` which database."""
    server = None if any_database == "sqlite" else request.getfixturevalue("postgres_server")
    async for make in _sites(tmp_path, nats_server, server, shared=True, node=request.node):
        yield make


@pytest.fixture
async def own_site(
    any_database: str,
    any_broker: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[MakeSite]:
    """A site whose broker, and on PostgreSQL database, may be killed. Say `@on(...)` which database."""
    broker = request.getfixturevalue("own_nats_server" if any_broker == "nats" else "own_valkey_server")
    server = None if any_database == "sqlite" else request.getfixturevalue("own_postgres_server")
    async for make in _sites(tmp_path, broker, server, shared=False, node=request.node):
        yield make


@pytest.fixture
async def postgresql_site(
    tmp_path: Path,
    own_nats_server: NatsServer,
    own_postgres_server: PostgresServer,
    request: pytest.FixtureRequest,
) -> AsyncIterator[MakeSite]:
    """A site on PostgreSQL whose broker and database may be killed."""
    async for make in _sites(tmp_path, own_nats_server, own_postgres_server, shared=False, node=request.node):
        yield make


@pytest.fixture
async def sqlite_site(
    tmp_path: Path, own_nats_server: NatsServer, request: pytest.FixtureRequest
) -> AsyncIterator[MakeSite]:
    """A site on SQLite whose broker may be killed."""
    async for make in _sites(tmp_path, own_nats_server, None, shared=False, node=request.node):
        yield make


async def _sites(
    folder: Path, nats: NatsServer | ValkeyServer, postgres: PostgresServer | None, *, shared: bool, node: Any
) -> AsyncIterator[MakeSite]:
    """One site, entered at the first call, left at the end; a failed test keeps its logs."""
    made: list[Site] = []
    url = postgres.database() if postgres else f"sqlite+aiosqlite:///{folder / 'desk.db'}"

    async def make(**environ: str) -> Site:
        site = Site(folder, url, nats, postgres, **environ)
        made.append(await site.__aenter__())
        return site

    try:
        yield make
    finally:
        for site in made:
            await site.__aexit__()
            if getattr(node, "failed", False):
                site.desk.keep_logs(node.nodeid)
        if postgres and shared:
            postgres.drop(url)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [each for name in ("passed", "failed") for each in terminalreporter.stats.get(name, [])]
    properties = [each.user_properties for each in reports if getattr(each, "when", "") == "call"]
    lines = table([value for pairs in properties for name, value in pairs if name == "chaos"])
    if lines:
        terminalreporter.section(f"what the chaos left (seed {SEED}, {'full' if FULL else 'short'} size)")
        for line in lines:
            terminalreporter.write_line(line)
