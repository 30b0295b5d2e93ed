"""A migrated database, an admin, and everything that was written about them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from worker.accounts import actions
from worker.accounts.actor import Actor
from worker.accounts.models import AuditEntry, User
from worker.accounts.signing_in import Caller
from worker.db.session import Database

PASSWORD = "correct horse battery staple"
CONSOLE = Actor("console", via="cli")
HERE = Caller("192.0.2.1", "tests")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def ada(database: Database) -> User:
    return await actions.add_user(database, "Ada", role="admin", password=PASSWORD, actor=CONSOLE)


@pytest.fixture
async def olga(database: Database, ada: User) -> User:
    return await actions.add_user(database, "olga", role="operator", password=PASSWORD, actor=as_actor(ada))


def as_actor(user: User) -> Actor:
    return Actor(user.name, user.role, user_id=user.id)


async def entries(database: Database, **wanted: Any) -> list[Any]:
    async with database.read() as connection:
        statement = sa.select(AuditEntry.__table__).order_by(AuditEntry.id)
        for name, value in wanted.items():
            statement = statement.where(getattr(AuditEntry, name) == value)
        return list(await connection.execute(statement))
