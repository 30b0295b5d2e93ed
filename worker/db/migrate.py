"""Brings the database to this program's schema; any number of processes may ask for it at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.db.session import Database
from worker.errors import DatabaseOutdated, DatabaseUnavailable
from worker.settings import without_password

LOCK = 7_305_522_260_117
"""The advisory lock under which PostgreSQL is migrated."""

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION = sa.table("alembic_version", sa.column("version_num"))

T = TypeVar("T")


@cache
def head() -> str:
    """The revision this program was written for: the one that no other builds on.

    Read from the files' text. Every process asks at its start, and Alembic with all migrations takes a tenth of that.
    """
    texts = [path.read_text(encoding="utf-8") for path in (MIGRATIONS / "versions").glob("*.py")]
    made, built_on = (
        {found[1] for text in texts if (found := re.search(rf'^{name}\b.*= "(\w+)"$', text, re.MULTILINE))}
        for name in ("revision", "down_revision")
    )
    [revision] = made - built_on
    return revision


async def upgrade(url: str) -> None:
    """Applies every missing migration, each in a transaction of its own kind.

    Raises:
        DatabaseUnavailable: naming what the database said.
    """
    await _with_database(url, lambda database: _on_connection(database.engine, _upgrade))


async def current(url: str) -> str | None:
    """The revision the database is at, or None when it has never been migrated."""
    revision: str | None = await _with_database(url, _read_revision)
    return revision


async def check(url: str) -> None:
    """Raises DatabaseOutdated when the database is not at this program's revision."""
    found = await current(url)
    if found != head():
        raise DatabaseOutdated(found=found or "nothing", wanted=head())


async def _read_revision(database: Database) -> str | None:
    """Looking takes no lock: it must not wait behind a writer."""
    async with database.read() as connection:
        return await connection.run_sync(_revision)


async def _with_database(url: str, use: Callable[[Database], Any]) -> Any:
    try:
        database = Database(url, pool_size=1, lock_timeout_s=60)
    except OSError as error:
        raise DatabaseUnavailable(database=without_password(url), cause=error) from error
    try:
        return await use(database)
    except (DBAPIError, OSError) as error:
        raise DatabaseUnavailable(database=without_password(url), cause=_first_line(error)) from error
    finally:
        with suppress(asyncio.CancelledError):
            await database.close()


async def _on_connection(engine: AsyncEngine, use: Callable[[sa.Connection], T]) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(use)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    return connection.scalar(sa.select(VERSION.c.version_num))


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
