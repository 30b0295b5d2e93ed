"""Migrations bring an empty database to this program's schema, however many processes ask at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from worker.db import migrate
from worker.db.base import metadata
from worker.db.session import Database
from worker.errors import DatabaseOutdated, DatabaseUnavailable

ROOT = Path(__file__).parents[3]
CODE = "import asyncio, sys; from worker.db.migrate import upgrade; asyncio.run(upgrade(sys.argv[1]))"


def test_four_processes_may_migrate_at_once(empty_database_url: str) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, empty_database_url], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0, 0], ended


async def test_the_migrated_schema_is_the_models(database_url: str) -> None:
    database = Database(database_url)
    async with database.engine.connect() as connection:
        found = await connection.run_sync(
            lambda c: {
                t: {col["name"] for col in sa.inspect(c).get_columns(t)}
                for t in sa.inspect(c).get_table_names()
            }
        )
    await database.close()
    assert {name: {c.name for c in table.columns} for name, table in metadata.tables.items()} == {
        name: columns for name, columns in found.items() if name != "alembic_version"
    }


async def test_an_unmigrated_database_is_named_with_the_cure(empty_database_url: str) -> None:
    with pytest.raises(DatabaseOutdated, match="m db upgrade"):
        await migrate.check(empty_database_url)
    await migrate.upgrade(empty_database_url)
    await migrate.check(empty_database_url)
    assert await migrate.current(empty_database_url) == migrate.head()


async def test_a_database_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("not a folder")
    with pytest.raises(DatabaseUnavailable):
        await migrate.upgrade(f"sqlite+aiosqlite:///{tmp_path / 'a-file' / 'desk.db'}")


async def test_the_audit_log_can_be_sealed_once_and_never_changed(database_url: str) -> None:
    from worker.accounts.actor import ENGINE
    from worker.accounts.audit import audit

    database = Database(database_url)
    async with database.transaction() as session:
        await audit(session, ENGINE, "test.done", after={"n": 1})
    async with database.transaction() as session:
        await session.execute(sa.text("UPDATE audit_entries SET seal = 'x'"))
    for change in (
        "UPDATE audit_entries SET actor = 'eve'",
        "UPDATE audit_entries SET seal = 'y'",
        "DELETE FROM audit_entries",
    ):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"):
            async with database.transaction() as session:
                await session.execute(sa.text(change))
    await database.close()


def test_the_revision_that_the_files_tell_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert migrate.head() == ScriptDirectory.from_config(config).get_current_head()


def test_a_process_starts_without_alembic() -> None:
    code = "import sys, worker.process.child, worker.process.clerk; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
