"""What the pages of this desk share: the process's engine, a connection to read with, what is asked for once for many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from webapp import render
from webapp.cached import Cached
from worker.db.session import Database
from worker.engine import Engine
from worker.settings import Settings

AnyRequest = Request[Any, Any, Any]
Answer = Response[Any]


def engine(request: AnyRequest) -> Engine:
    found: Engine = request.app.state.engine
    return found


def database(request: AnyRequest) -> Database:
    return engine(request).database


def settings(request: AnyRequest) -> Settings:
    return engine(request).settings


def late_after_s(request: AnyRequest) -> float:
    return settings(request).alert_backlog_age_s


def cached(request: AnyRequest) -> Cached:
    """Answers that many readers may share for a moment."""
    found: Cached | None = request.app.state.get("cached")
    if found is None:
        found = request.app.state["cached"] = Cached(engine(request).cache)
    return found


@asynccontextmanager
async def acting(request: AnyRequest) -> AsyncIterator[AsyncSession]:
    """A transaction for what a person does; answers shared from before it are forgotten when it has committed."""
    async with database(request).transaction() as session:
        yield session
    await cached(request).forget()


def address(path: str, pairs: Sequence[tuple[str, Any]]) -> str:
    """The path with what is set of the pairs as its query."""
    query = urlencode([(name, value) for name, value in pairs if value not in (None, "", ())])
    return f"{path}?{query}" if query else path


def gone(request: AnyRequest, noun: str, url: str) -> Answer:
    """What was asked for is not there: back to the list, which says so."""
    return render.redirect(request, url, f"That {noun} is not there any more, or never was.", "error")
