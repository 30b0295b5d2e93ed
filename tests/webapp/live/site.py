"""A web process in this process: the real application under uvicorn on a port of its own, and browsers reduced to sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.webapp.site import application
from worker.accounts import actions, signing_in
from worker.accounts.actor import ENGINE, Actor
from worker.accounts.models import User
from worker.accounts.signing_in import Caller
from worker.db.base import new_id, utc_now
from worker.db.session import changed, emit
from worker.engine import Engine
from worker.joblogs.models import JobLog, JobLogLine
from worker.settings import Settings

ADMIN = Actor("test", "admin")


@dataclass
class Site:
    """One web process. Two of them on one database and one broker are two browsers' two servers."""

    engine: Engine
    port: int
    app: Any

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def live(self) -> Any:
        return self.app.state.live

    # People

    async def sign_in(self, role: str = "operator", name: str | None = None) -> str:
        """A new person's session token."""
        async with self.engine.database.transaction() as session:
            if await session.scalar(sa.select(User.id).limit(1)) is None:
                session.add(User(name="first", role="admin", created_at=utc_now()))
            user = User(name=name or f"p{new_id().hex}", role=role, created_at=utc_now())
            session.add(user)
            await session.flush()
            return (await signing_in.begin_session(session, user, Caller())).token

    async def token(self, role: str = "operator") -> str:
        async with self.engine.database.transaction() as session:
            return (await actions.add_token(session, f"t{new_id().hex}", role=role, actor=ADMIN)).token

    async def user_id(self, session_token: str) -> UUID:
        user = await self.app.state.authenticator.by_session(session_token)
        return user.id

    async def session_id(self, session_token: str) -> UUID:
        return (await self.app.state.authenticator.by_session(session_token)).session_id

    # Sockets

    def open(
        self,
        session_token: str | None = None,
        *,
        origin: str | None = "",
        path: str = "/live",
        **options: Any,
    ):
        headers = dict(options.pop("headers", {}))
        if session_token:
            headers["Cookie"] = f"session={session_token}"
        if origin is not None:
            headers["Origin"] = origin or self.base
        return connect(
            self.ws + path, additional_headers=headers, compression=None, ping_interval=None, **options
        )

    @asynccontextmanager
    async def page(self, session_token: str | None = None, role: str = "operator") -> AsyncIterator[Page]:
        """A page with an open socket."""
        async with self.open(session_token or await self.sign_in(role)) as connection:
            page = Page(connection)
            reading = asyncio.create_task(page.read())
            try:
                yield page
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    # Jobs, moved by hand

    async def job(self, name: str = "add", status: str = "queued", **values: Any) -> UUID:
        job_id = values.pop("id", None) or new_id()
        now = utc_now()
        async with self.engine.database.transaction() as session:
            row = {"args": {"a": 1}, "queue": "default", "enqueued_at": now, "run_at": now, **values}
            session.add(JobLog(id=job_id, job_name=name, status=status, **row))
            changed(session, "job", job_id, 1)
            emit(session, "job.queued", {"job_id": str(job_id), "job_name": name})
        return job_id

    async def move(self, job_id: UUID, *, tell: bool = True, **values: Any) -> int:
        """Writes to the row as a recorder would; without `tell` as one whose message is lost."""
        async with self.engine.database.transaction() as session:
            statement = sa.update(JobLog).where(JobLog.id == job_id).values(rev=JobLog.rev + 1, **values)
            rev = await session.scalar(statement.returning(JobLog.rev))
            if tell:
                changed(session, "job", job_id, rev)
                if "status" in values:
                    topic = {"running": "started", "success": "succeeded"}.get(
                        values["status"], values["status"]
                    )
                    emit(session, f"job.{topic}", {"job_id": str(job_id)})
        return rev

    async def log(self, job_id: UUID, *messages: str, first: int, epoch: int = 1, tell: bool = True) -> None:
        async with self.engine.database.transaction() as session:
            for seq, message in enumerate(messages, first):
                line = JobLogLine(
                    job_id=job_id, epoch=epoch, seq=seq, at=utc_now(), level="INFO", message=message
                )
                session.add(line)
            if tell:
                changed(session, "job-logs", job_id, first + len(messages) - 1)


@dataclass
class Page:
    """What a page does with its socket: says what it shows, takes what comes."""

    connection: ClientConnection
    frames: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    code: int | None = None

    async def read(self) -> None:
        try:
            async for frame in self.connection:
                text = str(frame)
                if text.startswith("{"):
                    self.messages.append(json.loads(text))
                else:
                    self.frames.append(text)
        except ConnectionClosed:
            pass
        finally:
            self.code = self.connection.close_code

    async def watch(self, *pairs: tuple[str, str]) -> None:
        await self.connection.send(json.dumps({"watch": pairs}))

    async def say(self, message: Any) -> None:
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    @property
    def html(self) -> str:
        return "".join(self.frames)

    async def until(self, done: Callable[[], Any], seconds: float = 30) -> Any:
        async with asyncio.timeout(seconds):
            while not (answer := done()):
                await asyncio.sleep(0.002)
        return answer

    async def shows(self, text: str, seconds: float = 30) -> None:
        try:
            await self.until(lambda: text in self.html, seconds)
        except TimeoutError:
            raise AssertionError(f"{text!r} never came; came: {self.html[-2000:]}") from None

    async def told(self, **wanted: Any) -> dict[str, Any]:
        """The first JSON message with these fields."""

        def found() -> dict[str, Any] | None:
            return next((m for m in self.messages if all(m.get(k) == v for k, v in wanted.items())), None)

        try:
            return await self.until(found)
        except TimeoutError:
            raise AssertionError(f"{wanted} never came; came: {self.messages[-20:]}") from None

    async def closed(self, seconds: float = 30) -> int | None:
        await self.until(lambda: self.code is not None, seconds)
        return self.code


@asynccontextmanager
async def site(
    database_url: str, home: Path, *, nats_url: str | None = None, prefix: str = "framework", **settings: Any
) -> AsyncIterator[Site]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    values = {
        "database_url": database_url,
        "secret_key": "a-secret-key-for-tests-that-is-long-enough-0123456789",
        "nats_url": nats_url,
        "home": home,
        "port": port,
        "prefix": prefix,
        **settings,
    }
    engine = Engine.create(Settings(**values))
    with application(engine) as app:
        config = uvicorn.Config(
            app, ws="websockets-sansio", ws_per_message_deflate=False, ws_max_size=65_536, lifespan="on",
            log_level="warning", log_config=None, timeout_graceful_shutdown=3,
            ws_ping_timeout=300,  # who stalls is dropped for what waits, not for a ping on a slow machine
        )  # fmt: skip
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign]
        serving = asyncio.create_task(server._serve([listener]))
        while not server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        try:
            yield Site(engine, port, app)
        finally:
            server.should_exit = True
            await serving
            listener.close()


__all__ = ["ENGINE", "Page", "Site", "site"]
