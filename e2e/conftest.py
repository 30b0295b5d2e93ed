"""The browser ring: a Chromium that works, and desks of real processes. Synchronous Playwright, so it runs apart from tests/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.stage import Stage, make_desk
from tests.desk import Desk
from tests.fixtures import *  # noqa: F403 # fixtures and hooks are found by name
from tests.fixtures import refuse
from tests.servers import Missing, chromium
from tests.servers.nats import NatsServer


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


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
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
