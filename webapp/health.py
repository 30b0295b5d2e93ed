"""/healthz: this process answers. /readyz: it can also do its work. Both are open and say nothing of the inside."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import sqlalchemy as sa
from litestar import Request, Response, get
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from worker.db import migrate
from worker.engine import Engine

ANSWER_TIMEOUT_S = 3.0
REMEMBERED_S = 0.5

Check = Literal["ok", "degraded", "failed"]


class Alive(Struct):
    status: Literal["ok"] = "ok"


class Ready(Struct):
    """`degraded` is ready: jobs are accepted and run, only more slowly noticed."""

    status: Check
    database: Check
    migrations: Check
    broker: Check


@get("/healthz", opt={"public": True}, include_in_schema=False)
async def healthz() -> Alive:
    return Alive()


@get("/readyz", opt={"public": True}, include_in_schema=False)
async def readyz(request: Request[Any, Any, Any]) -> Response[Ready]:
    """200 while this process can accept work: the broker may be away, the database may not."""
    state = request.app.state
    if not hasattr(state, "readiness"):
        state.readiness = Readiness(state.engine)
    ready: Ready = await state.readiness.ask()
    return Response(ready, status_code=503 if ready.status == "failed" else 200)


routes = [healthz, readyz]


@dataclass
class Readiness:
    """Asks the database at most twice a second, however many ask us."""

    engine: Engine
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: Ready | None = None
    asked_at: float = 0.0

    async def ask(self) -> Ready:
        async with self.lock:
            if self.answer is None or time.monotonic() - self.asked_at > REMEMBERED_S:
                self.answer, self.asked_at = await self._look(), time.monotonic()
            return self.answer

    async def _look(self) -> Ready:
        broker: Check = "ok" if self.engine.doorbells.connected else "degraded"
        try:
            revision = await asyncio.wait_for(self._revision(), ANSWER_TIMEOUT_S)
        except (SQLAlchemyError, OSError):
            return Ready("failed", database="failed", migrations="failed", broker=broker)
        if revision != _head():
            return Ready("failed", database="ok", migrations="failed", broker=broker)
        return Ready(broker, database="ok", migrations="ok", broker=broker)

    async def _revision(self) -> str | None:
        async with self.engine.database.read() as connection:
            revision: str | None = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return revision


@lru_cache
def _head() -> str:
    return migrate.head()
