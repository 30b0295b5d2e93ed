"""What a command works with: the configuration, the database, the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worker.errors import DatabaseUnavailable
from worker.settings import Settings, without_password

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.engine import Engine
    from worker.jobs.registry import Registry

T = TypeVar("T")


def read_settings(**variables: str | int | None) -> Settings:
    """The configuration; what a command's options say is put into the environment, so that child processes read it too."""
    for name, value in variables.items():
        if value is not None:
            os.environ[name] = str(value)
            os.environ.pop(f"{name}_FILE", None)
    return Settings.from_env()


def desk_settings() -> Settings:
    """The configuration of a command that works on a desk: with the broker of a running `m dev` where none is named."""
    settings = read_settings()
    if settings.nats_url or settings.redis_url:
        return settings
    from worker.process.nats_server import running_url

    return replace(settings, nats_url=running_url(settings.home))


def own_jobs(settings: Settings) -> Registry:
    """The jobs of M_JOB_MODULES; none where no module is named.

    Raises:
        JobModuleError, DuplicateJob, BadJobDefinition: naming what is wrong in the modules.
    """
    from worker.jobs.registry import Registry

    log_warnings()
    return Registry().discover(settings.job_modules)


def with_database(work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    """Runs `work` on the database alone: for commands that only look."""
    settings = read_settings()
    log_warnings()

    async def run() -> T:
        from worker.db.session import Database

        async with _database_errors(settings):
            database = Database(settings.database_url, pool_size=1)
            try:
                return await work(database)
            finally:
                await database.close()

    return asyncio.run(run())


def with_engine(work: Callable[[Engine], Coroutine[Any, Any, T]], registry: Registry | None = None) -> T:
    """Runs `work` with a started engine: for commands that change something; its doorbells ring."""
    settings = desk_settings()
    log_warnings()

    async def run() -> T:
        from worker.engine import Engine

        async with _database_errors(settings), Engine.create(settings, registry=registry) as engine:
            return await work(engine)

    return asyncio.run(run())


def log_warnings() -> None:
    """A command's stdout is its answer; what else there is to say goes to stderr."""
    import logging

    from worker.logs import log_to_stderr

    log_to_stderr(logging.WARNING)


@asynccontextmanager
async def _database_errors(settings: Settings) -> AsyncIterator[None]:
    """Turns what the database's driver raises into one line that says what to do."""
    from sqlalchemy.exc import DBAPIError

    _refuse_missing_file(settings)
    try:
        yield
    except (DBAPIError, OSError) as error:
        from worker.db import migrate

        await migrate.check(settings.database_url)  # the better answer, where the tables are missing or old
        raise DatabaseUnavailable(
            database=without_password(settings.database_url), cause=first_line(error)
        ) from error


def _refuse_missing_file(settings: Settings) -> None:
    """SQLite would make an empty file, and the command would look at nothing."""
    if settings.dialect != "sqlite":
        return
    path = settings.database_url.partition(":///")[2].partition("?")[0]
    if path and path != ":memory:" and not Path(path).exists():
        raise DatabaseUnavailable(
            database=settings.database_url,
            cause=f"there is no {path} yet. Make it with: m db upgrade (or start m dev)",
        )


def first_line(error: BaseException) -> str:
    """What the driver said, in one line and without the statement and its parameters."""
    cause = getattr(error, "orig", None) or error
    return next(iter(str(cause).splitlines()), "") or type(cause).__name__
