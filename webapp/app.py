"""The web application: what it is made of, in the order a request meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from jinja2 import Environment
from litestar import Litestar, Request, Router
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins.htmx import HTMXRequest

from webapp import health, metrics, render, static
from webapp.api import bulk, catalogue, events, jobs, queues, schedules, stream, tokens, workers
from webapp.api import dead_letters as dead_letters_api
from webapp.api import effects as effects_api
from webapp.api import webhook_logs as webhook_logs_api
from webapp.api import webhooks as webhooks_api
from webapp.auth import Authenticator, door
from webapp.compression import COMPRESSION
from webapp.errors import respond
from webapp.live import socket_route
from webapp.live.service import Live
from webapp.navigation import NavigationCounters
from webapp.pages import (
    accounts,
    audit,
    dead_letters,
    deliveries,
    effects,
    job_logs,
    overview,
    schedule_actions,
    settings,
    signing_in,
    webhook_actions,
)
from webapp.pages import events as events_pages
from webapp.pages import jobs as jobs_pages
from webapp.pages import schedules as schedules_pages
from webapp.pages import webhooks as webhooks_pages
from webapp.pages import workers as workers_pages
from webapp.paths import folder
from webapp.security import MAX_BODY_BYTES, Gate, Rules
from webapp.static import StaticFiles
from worker.engine import Engine
from worker.process.inline import InlineWorker
from worker.webhooks.checks import WebhookChecks

PAGES: Final = [
    *overview.routes,
    *job_logs.routes,
    *dead_letters.routes,
    *effects.routes,
    *jobs_pages.routes,
    *schedules_pages.routes,
    *schedule_actions.routes,
    *webhooks_pages.routes,
    *webhook_actions.routes,
    *deliveries.routes,
    *events_pages.routes,
    *workers_pages.routes,
    *signing_in.routes,
    *accounts.routes,
    *audit.routes,
    *settings.routes,
]

API: Final = Router(
    "/api/v1",
    route_handlers=[
        *jobs.routes,
        *bulk.routes,
        *dead_letters_api.routes,
        *effects_api.routes,
        *catalogue.routes,
        *queues.routes,
        *schedules.routes,
        *webhooks_api.routes,
        *webhook_logs_api.routes,
        *events.routes,
        *workers.routes,
        *tokens.routes,
        *stream.routes,
    ],
    include_in_schema=True,
)

MACHINERY: Final = [*health.routes, *metrics.routes, *static.routes, *socket_route.routes]

OPENAPI: Final = OpenAPIConfig(
    title="M Desk",
    version="1",
    description="Jobs, schedules, webhooks, queues and workers. Every call needs `Authorization: Bearer <token>`; errors are Problem Details.",
    path="/schema",
    use_handler_docstrings=True,
    render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
    security=[{"token": []}],
    components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
)


def create_app(engine: Engine, *, runs_jobs: bool = False, jinja: Environment | None = None) -> Litestar:
    """The web process's application around an engine, which it starts and stops.

    With `runs_jobs` it is the worker too: where there is no broker, no other process could be. Applications of one
    process may share a `jinja` environment: compiling the templates is the slow part.
    """
    return furnish(assemble(), engine, runs_jobs=runs_jobs, jinja=jinja)


def assemble() -> Litestar:
    """The routes and what all requests pass through, without anything to serve yet: see `furnish`."""
    return Litestar(
        route_handlers=[*PAGES, API, *MACHINERY],
        guards=[door],
        before_request=count_for_navigation,
        exception_handlers={Exception: respond},
        request_class=HTMXRequest,
        request_max_body_size=MAX_BODY_BYTES,
        compression_config=COMPRESSION,
        include_in_schema=False,
        openapi_config=OPENAPI,
        logging_config=None,
        lifespan=[running],
    )


def furnish(
    app: Litestar, engine: Engine, *, runs_jobs: bool = False, jinja: Environment | None = None
) -> Litestar:
    """Puts the application around this engine. One that has ended may be furnished again: routes take long to register."""
    files = StaticFiles(folder("static"))
    rules = Rules(engine.settings)
    authenticator = Authenticator(engine.database)
    jinja = jinja or render.make_environment(files)
    app.state = State(
        {
            "engine": engine,
            "inline_worker": InlineWorker() if runs_jobs else None,
            "rules": rules,
            "authenticator": authenticator,
            "static": files,
            "jinja": jinja,
            "webhook_checks": WebhookChecks(engine.settings),
            "live": Live.of(engine, authenticator, jinja),
            "counters": NavigationCounters(engine.database, engine.settings.alert_backlog_age_s),
        }
    )
    behind = app.asgi_handler.inner if isinstance(app.asgi_handler, Gate) else app.asgi_handler
    app.asgi_handler = Gate(behind, rules, authenticator)
    return app


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """What lives as long as the process serves."""
    engine: Engine = app.state.engine
    async with engine:
        forget = engine.socket.subscribe(app.state.authenticator.hear)
        live: Live = app.state.live
        inline: InlineWorker | None = app.state.inline_worker
        await live.start()
        if inline is not None:
            await inline.start(engine)
        try:
            yield
        finally:
            if inline is not None:
                await inline.stop()
            await live.stop()
            forget()
            await app.state.webhook_checks.close()
            await app.state.authenticator.settle()


async def count_for_navigation(request: Request[Any, Any, Any]) -> None:
    """Pages show three numbers beside their menu; they are asked for at most once a second in a process."""
    if request.scope["user"] is not None and request.scope["user"].session_id is not None:
        await request.app.state.counters.refresh()
