"""A database with rows put in directly: what the queries read, whoever wrote it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.webapp.rows import Rows
from worker.db.session import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=2)
    yield database
    await database.close()


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database)
