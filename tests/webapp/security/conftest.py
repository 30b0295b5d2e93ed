"""Sites to attack: one on http as a laptop runs it, one on https behind a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.webapp.site import Site, running_site


@pytest.fixture
async def site(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(sqlite_url, tmp_path) as site:
        yield site


@pytest.fixture
async def https_site(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(
        sqlite_url, tmp_path, public_url="https://desk.example.com", trusted_proxies=("10.0.0.0/8",)
    ) as site:
        yield site
