"""`python -m webapp`: the web process. `m web` becomes it."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn

from webapp.app import create_app
from worker.db import migrate
from worker.engine import Engine
from worker.errors import DeskError, PortTaken
from worker.jobs.registry import Registry
from worker.logs import log_to_stderr
from worker.process.entry import collect_less
from worker.settings import Settings

CONFIGURATION = 78


def main() -> int:
    log_to_stderr()
    try:
        settings = Settings.from_env()
        listener = listen(settings.host, settings.port)
        registry = own_jobs(settings)
        if registry is not None:  # it works from its first moment, so there must be something to work on
            asyncio.run(migrate.check(settings.database_url))
    except DeskError as error:
        return _say(error)
    app = create_app(Engine.create(settings, registry=registry), runs_jobs=registry is not None)
    collect_less()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=65_536,
            lifespan="on",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=65,
            log_level="warning",
        )
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


def own_jobs(settings: Settings) -> Registry | None:
    """Without a broker there is no other process that could run jobs: this one does, so it knows them."""
    if settings.transport != "memory":
        return None
    registry = Registry()
    registry.discover(settings.job_modules)
    return registry


def listen(host: str, port: int) -> socket.socket:
    """Takes the port before anything else is opened.

    Raises:
        PortTaken: naming it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(host=host, port=port) from error
    listener.set_inheritable(True)
    return listener


def _say(error: DeskError) -> int:
    """Settings, port, job modules, migrations: starting again does not mend them. A database that is away may come."""
    print(f"m web: {error}", file=sys.stderr)  # noqa: T201 # the command line's own answer
    return 1 if error.retriable else CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
