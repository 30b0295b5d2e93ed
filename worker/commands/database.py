"""`m db …`: brings the database to this program's schema."""

from __future__ import annotations

import asyncio

import typer

from worker.commands.output import say
from worker.commands.setting import read_settings

db_app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@db_app.command("upgrade")
def upgrade() -> None:
    """Applies the missing migrations. Several processes may do so at once."""
    from worker.db import migrate

    settings = read_settings()
    asyncio.run(migrate.upgrade(settings.database_url))
    say(f"the database is at migration {migrate.head()}")


@db_app.command("check")
def check() -> None:
    """Exit 0 when the database is at this program's migration, else 1."""
    from worker.db import migrate

    settings = read_settings()
    asyncio.run(migrate.check(settings.database_url))
    say(f"the database is at migration {migrate.head()}")
