"""The fixtures of every ring; see tests/fixtures.py. And which tests keep to one test process."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.fixtures import *  # noqa: F403 # fixtures and hooks are found by name


class OneStormAtATime(LoadFileScheduling):
    """A file's tests together, and all storms one after the other: two at once would take each other's processor."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/chaos" if nodeid.startswith("tests/chaos/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneStormAtATime | None:
    return OneStormAtATime(config, log) if config.getvalue("dist") == "loadfile" else None
