"""A desk's pages over a real database, with a crew that runs its jobs when a test says so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.servers.nats import NatsServer
from tests.webapp.pages import jobs
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site, running_site
from worker import testing
from worker.db.base import new_id, utc_now
from worker.engine import Engine
from worker.joblogs.models import JobLog
from worker.jobs.registry import Registry
from worker.process.models import Worker
from worker.settings import Settings


@dataclass
class Crew:
    """Enqueues and executes as a worker beside the web process would."""

    desk: testing.Desk
    worker_id: UUID

    async def enqueue(self, name: str, **args: Any) -> UUID:
        return await self.desk.engine.enqueue(name, args)

    async def work(self) -> None:
        await self.desk.run_until_idle()

    async def job(self, job_id: UUID | str) -> JobLog:
        return await self.desk.job(job_id)

    async def jobs(self) -> list[JobLog]:
        return await self.desk.jobs()


@pytest.fixture
async def site(database_url: str, tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Site]:
    prefix = f"pages-{new_id().hex[-12:]}"
    async with running_site(database_url, tmp_path, nats_url=nats_server.url, prefix=prefix) as site:
        yield site


@pytest.fixture
async def crew(site: Site, database_url: str, tmp_path: Path) -> AsyncIterator[Crew]:
    registry = Registry()
    for one in jobs.ALL:
        registry.add(one.definition)
    settings = Settings(database_url=database_url, secret_key="k" * 40, home=tmp_path)
    engine, worker_id = Engine.create(settings, registry=registry), new_id()
    now = utc_now()
    async with engine:
        async with engine.database.transaction() as session:
            session.add(
                Worker(
                    id=worker_id, kind="worker", host="box", pid=41, queues=["default", "mail"], slots=10,
                    jobs=registry.names(), beat_at=now, started_at=now,
                )
            )  # fmt: skip
        await engine.catalogue.advertise(registry, worker_id)
        desk = testing.Desk(engine)
        yield Crew(desk, worker_id)
        desk.close()


@pytest.fixture
async def ada(site: Site, crew: Crew) -> Browser:
    """An operator, signed in."""
    return await site.signed_in("Ada", "operator")


@pytest.fixture
async def vera(site: Site, crew: Crew) -> Browser:
    """A viewer, signed in."""
    return await site.signed_in("Vera", "viewer")


@pytest.fixture
def rows(site: Site) -> Rows:
    return Rows(site.database)


def job_id_of(answer: httpx.Response) -> str:
    """The job that an answer leads to."""
    found = re.search(r"/job-logs/([0-9a-f-]{36})", answer.headers["location"])
    assert found, answer.headers["location"]
    return found[1]


def flash_of(answer: httpx.Response) -> str:
    """What an answer says on the page it leads to."""
    found = re.search(r'class="flash is-(\w+)".*?<p>(.*?)</p>', answer.text, re.DOTALL)
    return f"{found[1]}: {found[2]}" if found else ""
