"""The real application over a real database, asked by HTTP inside this process; no broker, and nobody runs the jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import sqlalchemy as sa
from litestar import Litestar

from tests.webapp.api import jobs as job_module
from tests.webapp.site import application
from worker.accounts import actions as accounts
from worker.accounts.actor import cli_actor
from worker.db.base import utc_now
from worker.engine import Engine
from worker.joblogs.models import JobLog
from worker.jobs.registry import Registry
from worker.settings import Settings

NOWHERE = "0192f000-0000-7000-8000-000000000000"


@dataclass
class Client:
    """One caller of the API. `call` answers the status and the decoded body."""

    http: httpx.AsyncClient
    token: str
    engine: Engine

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        answer = (
            await self.raw(method, path, json=body, **options)
            if body is not None
            else await self.raw(method, path, **options)
        )
        return answer.status_code, answer.json() if answer.content else None

    async def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return await self.http.request(
            method, f"/api/v1{path}" if not path.startswith("/!") else path[2:], headers=headers, **options
        )

    async def run(
        self, name: str = "add", args: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        status, job = await self.call(
            "POST", "/jobs", {"job_name": name, "args": {"a": 1} if args is None else args} | fields
        )
        assert status == 202, job
        return job

    def problems(self, answer: Any) -> dict[str, str]:
        return {error["field"]: error["detail"] for error in answer["errors"]}

    async def set(self, job_id: str, **columns: Any) -> None:
        """Puts a job into a state that only a worker can bring about, around the trigger's watch: from queued on."""
        if columns.get("status") in ("success", "failed", "cancelled"):
            columns.setdefault("started_at", utc_now())
            columns.setdefault("completed_at", utc_now())
        async with self.engine.database.transaction() as session:
            await session.execute(
                sa.update(JobLog).where(JobLog.id == UUID(job_id)).values(rev=JobLog.rev + 1, **columns)
            )


@pytest.fixture
async def engine(database_url: str, tmp_path: Any) -> Engine:
    settings = Settings(database_url=database_url, secret_key="k" * 40, home=tmp_path)
    return Engine.create(settings)


@pytest.fixture
async def http(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    with application(engine) as app:
        async with serving(app):
            await engine.catalogue.advertise(Registry([job_module.add, job_module.send_email]), uuid4())
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                yield client


@asynccontextmanager
async def serving(app: Litestar) -> AsyncIterator[None]:
    """The application's lifespan, begun and ended by one task: a fixture's two halves run in two."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            begun.set()
            await over.wait()

    task = asyncio.create_task(live())
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        if not task.done():
            yield
    finally:
        over.set()
        waiting.cancel()
        await task


async def token(engine: Engine, role: str) -> str:
    async with engine.database.transaction() as session:
        return (await accounts.add_token(session, f"a-{role}", role=role, actor=cli_actor())).token


@pytest.fixture
async def operator(http: httpx.AsyncClient, engine: Engine) -> Client:
    return Client(http, await token(engine, "operator"), engine)


@pytest.fixture
async def viewer(http: httpx.AsyncClient, engine: Engine) -> Client:
    return Client(http, await token(engine, "viewer"), engine)


@pytest.fixture
async def admin(http: httpx.AsyncClient, engine: Engine) -> Client:
    return Client(http, await token(engine, "admin"), engine)
