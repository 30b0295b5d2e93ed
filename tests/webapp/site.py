"""The whole web application over a real database, and browsers that talk to it inside this process."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from jinja2 import Environment
from litestar import Litestar
from litestar.datastructures import State

from webapp import app as web
from webapp import render
from webapp.paths import folder
from webapp.static import StaticFiles
from worker.accounts import actions, signing_in
from worker.accounts.actor import Actor
from worker.accounts.models import AuditEntry, User
from worker.accounts.signing_in import Caller
from worker.db.session import Database
from worker.engine import Engine
from worker.settings import Settings

PASSWORD = "correct horse battery staple"
ADDRESS = "http://127.0.0.1:8000"
CONSOLE = Actor("console", via="cli")


@dataclass
class Site:
    """A running web application. `https` sites are made with M_PUBLIC_URL."""

    engine: Engine
    app: Litestar
    address: str = ADDRESS
    people: dict[str, User] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        return self.engine.database

    def browser(self, client: tuple[str, int] = ("127.0.0.1", 50000), **options: Any) -> Browser:
        """A browser without cookies."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False, client=client)  # type: ignore[arg-type] # Litestar's own ASGI types
        return Browser(httpx.AsyncClient(transport=transport, base_url=self.address, **options), self)

    async def person(self, name: str, role: str) -> User:
        if name not in self.people:
            self.people[name] = await actions.add_user(
                self.database, name, role=role, password=PASSWORD, actor=CONSOLE
            )
        return self.people[name]

    async def signed_in(self, name: str = "Ada", role: str = "admin") -> Browser:
        """A browser of this person, signed in without the form."""
        user, browser = await self.person(name, role), self.browser()
        async with self.database.transaction() as session:
            begun = await signing_in.begin_session(session, user, Caller("127.0.0.1", "test browser"))
        host = httpx.URL(self.address).host
        browser.http.cookies.set(self.cookie("session"), begun.token, domain=host)
        browser.session_id = begun.session_id
        return browser

    async def token(self, role: str, **options: Any) -> str:
        async with self.database.transaction() as session:
            made = await actions.add_token(session, f"robot-{role}", role=role, actor=CONSOLE, **options)
        return made.token

    def cookie(self, name: str) -> str:
        return f"__Host-{name}" if self.address.startswith("https") else name

    async def audited(self, **wanted: Any) -> list[Any]:
        async with self.database.read() as connection:
            statement = sa.select(AuditEntry.__table__).order_by(AuditEntry.id)
            for name, value in wanted.items():
                statement = statement.where(getattr(AuditEntry, name) == value)
            return list(await connection.execute(statement))


@dataclass
class Browser:
    """Sends what a browser sends. `post` takes the form's token from a page first, unless told otherwise."""

    http: httpx.AsyncClient
    site: Site
    session_id: Any = None
    tokens: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def post(
        self, path: str, data: Mapping[str, Any] | None = None, *, token: str | None = None, **options: Any
    ) -> httpx.Response:
        token = await self.form_token() if token is None else token
        return await self.http.post(path, data={"_csrf": token, **(data or {})}, **options)

    async def form_token(self) -> str:
        """The token of a form that this browser was shown: of one it still has, or of a page that is asked for now."""
        if (token := self.tokens.get(self._standing())) is None:
            signed_in = self.site.cookie("session") in self.http.cookies
            answer = await self.http.get("/account" if signed_in else "/sign-in", follow_redirects=True)
            token = self.tokens[self._standing()] = form_token(answer)
        return token

    def _standing(self) -> str:
        """What makes this browser who it is; another sign-in makes its old forms useless."""
        return str(sorted((cookie.name, cookie.value or "") for cookie in self.http.cookies.jar))

    async def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        return await self.post("/sign-in", {"name": name, "password": password, **fields})


def form_token(answer: httpx.Response) -> str:
    found = re.search(r'name="_csrf" value="([^"]+)"', answer.text)
    assert found, f"no form in {answer.request.url}: {answer.status_code} {answer.text[:200]}"
    return found[1]


@cache
def environment() -> Environment:
    """One for all sites of a test run: its templates are compiled once."""
    return render.make_environment(StaticFiles(folder("static")))


_idle: list[tuple[list[Any], Litestar]] = []


@contextmanager
def application(engine: Engine) -> Iterator[Litestar]:
    """The application around this engine, on the routes of one that an earlier test is done with.

    Registering them takes longer than most tests do. One that has other pages, or was given more, is not for others.
    """
    pages = [*web.PAGES]
    fitting = next((idle for idle in _idle if idle[0] == pages), None)
    if fitting:
        _idle.remove(fitting)
    app = fitting[1] if fitting else web.assemble()
    routes = len(app.routes)
    yield web.furnish(app, engine, jinja=environment())
    app.state = State()  # who still asks it, fails
    if len(app.routes) == routes:
        _idle.append((pages, app))


@asynccontextmanager
async def running_site(database_url: str, home: Path, **settings: Any) -> AsyncIterator[Site]:
    """`settings` are those of worker.settings.Settings."""
    engine = Engine.create(Settings(database_url=database_url, secret_key="k" * 40, home=home, **settings))
    with application(engine) as app:
        # Not app.lifespan(): its task group cannot end in another task, as fixtures do.
        async with web.running(app):
            yield Site(engine, app, settings.get("public_url") or ADDRESS)
