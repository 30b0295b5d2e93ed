"""Fixtures for real servers and fresh databases. A laptop that lacks one skips with the reason; `CI=true` fails instead."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

from tests.desk import Desk
from tests.servers import Missing
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer
from worker.db.migrate import upgrade

ROOT = Path(__file__).resolve().parents[1]
Server = TypeVar("Server", NatsServer, PostgresServer, ValkeyServer)
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
ALLOWED_SKIPS = ("only on ",)
"""A skip in CI must say "only on Windows" or the like: everything else that is missing there is a failure."""


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A test that sets up the log sets it up on its own captured stderr, which later tests find closed."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A running nats-server with JetStream: `.url`, `.stop()`, `.kill()`, `.start()`. Tests use a prefix of their own."""
    yield from _running(NatsServer)


@pytest.fixture
def own_nats_server() -> Iterator[NatsServer]:
    """A nats-server that this test alone may stop and kill."""
    yield from _running(NatsServer)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL: `.database()` gives the URL of a fresh database, `.drop(url)` removes it."""
    yield from _running(PostgresServer)


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that this test alone may stop and kill."""
    yield from _running(PostgresServer)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """A running Valkey: `.url`, `.stop()`, `.kill()`, `.start()`."""
    yield from _running(ValkeyServer)


@pytest.fixture
def own_valkey_server() -> Iterator[ValkeyServer]:
    """A Valkey that this test alone may stop and kill."""
    yield from _running(ValkeyServer)


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    """The URL of an emptied Valkey."""
    _flush(valkey_server)
    return valkey_server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without tables, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'desk.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.database()
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh, migrated database for one test, once on SQLite and once on PostgreSQL."""
    yield from request.getfixturevalue(f"{request.param}_url_maker")()


@pytest.fixture
def sqlite_url(sqlite_url_maker: Callable[[], Iterator[str]]) -> Iterator[str]:
    """A fresh, migrated SQLite database."""
    yield from sqlite_url_maker()


@pytest.fixture
def postgresql_url(postgresql_url_maker: Callable[[], Iterator[str]]) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database."""
    yield from postgresql_url_maker()


@pytest.fixture(scope="session")
def sqlite_url_maker(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Iterator[str]]:
    """Copies one migrated file per test."""
    folder = tmp_path_factory.mktemp("sqlite")
    template = folder / "template.db"
    migrate(f"sqlite+aiosqlite:///{template}", folder)

    def make() -> Iterator[str]:
        path = tmp_path_factory.mktemp("database") / "desk.db"
        shutil.copy(template, path)
        yield f"sqlite+aiosqlite:///{path}"

    return make


@pytest.fixture(scope="session")
def postgresql_url_maker(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Iterator[str]]:
    """Copies one migrated database per test, inside the server."""
    template = postgres_server.database()
    migrate(template, tmp_path_factory.mktemp("postgresql"))

    def make() -> Iterator[str]:
        url = postgres_server.database(template=postgres_server.name(template))
        yield url
        postgres_server.drop(url)

    return make


@pytest.fixture
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A desk of real processes under a home of its own; not started: call `.dev()`, or `.web()` and `.worker()`."""
    with Desk(tmp_path / "desk") as desk:
        yield desk
        if getattr(request.node, "failed", False):
            desk.keep_logs(request.node.nodeid)


def migrate(url: str, _home: Path) -> None:
    """Brings an empty database to the schema of this checkout, outside whatever event loop a test has."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(upgrade(url))).result()


def _running(kind: type[Server]) -> Iterator[Server]:
    server = kind()
    try:
        server.start()
    except Missing as missing:
        refuse(str(missing))
    yield server
    server.close()


def refuse(reason: str) -> None:
    """Skips on a laptop, fails in CI."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def _flush(server: ValkeyServer) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        connection.recv(16)


# In which order they run

LONG = ("chaos", "process")
"""Folders whose files take minutes: they start and end processes, and mostly wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that the last test process to end does not end long after the others."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


# What the report says


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that was skipped for another reason than its platform fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not IN_CI or reporter is None:
        return
    silent = [report for report in reporter.stats.get("skipped", []) if not _allowed(report)]
    for report in silent:
        reporter.write_line(
            f"CI: skipped, which counts as a failure: {report.nodeid}: {_reason(report)}", red=True
        )
    if silent and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _allowed(report: pytest.TestReport) -> bool:
    return hasattr(report, "wasxfail") or _reason(report).startswith(ALLOWED_SKIPS)


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
