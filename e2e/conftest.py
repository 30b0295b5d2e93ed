"""The browser ring: a Chromium that works, and desks of real processes. Synchronous Playwright, so it runs apart from tests/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.desk import Desk
from tests.fixtures import *  # noqa: F403 # fixtures and hooks are found by name
from tests.fixtures import refuse
from tests.servers import Missing, chromium


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
