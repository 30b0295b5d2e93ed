"""The browser ring: a Chromium that works, and desks of real processes. Synchronous Playwright, so it runs apart from tests/.

Two test processes share it: one has the desk on SQLite, the other the desk on PostgreSQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect
from xdist.scheduler import LoadScopeScheduling

from e2e.stage import SLOW_MS, Stage, make_desk
from tests.desk import Desk
from tests.fixtures import *  # noqa: F403 # fixtures and hooks are found by name
from tests.fixtures import refuse
from tests.servers import Missing, chromium
from tests.servers.nats import NatsServer

DATABASES = ("sqlite", "postgresql")
STAGE_AND_TEST_S = 300
"""A test that comes first waits for its desk: five processes and more, on a machine that has other work too."""

expect.set_options(timeout=SLOW_MS)


class OneDeskEach(LoadScopeScheduling):
    """Keeps a database's tests in one test process, and so its desk. (xdist's own groups do nothing under pytest 9.)"""

    def _split_scope(self, nodeid: str) -> str:
        parameters = re.split(r"[-\[\]]", nodeid.partition("[")[2])
        return next((name for name in DATABASES if name in parameters), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneDeskEach:
    return OneDeskEach(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(STAGE_AND_TEST_S))


@pytest.fixture(scope="session")
def chromium_browser() -> chromium.Chromium:
    """The browser that this machine has, or one fetched for it."""
    try:
        return chromium.find()
    except Missing as missing:
        refuse(str(missing))
        raise


@pytest.fixture(scope="session")
def browser_type_launch_args(
    browser_type_launch_args: dict[str, Any], chromium_browser: chromium.Chromium
) -> dict[str, Any]:
    return {**browser_type_launch_args, **chromium_browser.launch_options()}


@pytest.fixture(scope="module")
def running_desk(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """One `m dev` for a module's tests, on SQLite with its own nats-server. `JOBS` in the module names its job modules."""
    jobs = getattr(request.module, "JOBS", "")
    with Desk(tmp_path_factory.mktemp("desk"), jobs=jobs) as desk:
        desk.dev()
        yield desk
        if request.session.testsfailed:
            desk.keep_logs(request.module.__name__)


@pytest.fixture(scope="session", params=DATABASES)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nats_server: NatsServer
) -> Iterator[Stage]:
    """Two web and two worker processes on SQLite, then on PostgreSQL; every flow runs on both."""
    home = tmp_path_factory.mktemp(f"stage-{request.param}")
    if request.param == "sqlite":
        database_url = f"sqlite+aiosqlite:///{home / 'desk.db'}"
    else:
        database_url = request.getfixturevalue("postgres_server").database()
    with make_desk(home, database_url, nats_server.url, f"e2e-{request.param}") as desk:
        stage = Stage(desk, request.param)
        stage.open()
        yield stage
        if request.session.testsfailed:
            desk.keep_logs(f"stage-{request.param}")
