"""The clerk's loops as they are: an event arrives at a receiver, signed, within a moment of its commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook as Verifier

from tests.servers.receiver import Receiver, receiver, response
from worker.accounts.actor import Actor
from worker.db.session import emit
from worker.engine import Engine
from worker.jobs.registry import Registry
from worker.process.clerk import loops, run_loops
from worker.settings import Settings
from worker.webhooks import actions, replays
from worker.webhooks.models import WebhookLog
from worker.webhooks.sandbox import Sandbox
from worker.webhooks.sending import SaveChecks
from worker.webhooks.transport import Sender as Transport
from worker.webhooks.urls import Rule
from worker.webhooks.wishes import checked

ADA = Actor("ada", role="admin")
WITHIN_S = 30
OURS = ("takers", "courier", "lost deliveries", "replays")


class Site:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.database = engine.database

    @asynccontextmanager
    async def clerk(self) -> AsyncIterator[None]:
        work = asyncio.create_task(run_loops([loop for loop in loops(self.engine) if loop.name in OURS]))
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def create(self, there: Receiver, **wish: Any) -> tuple[Any, str]:
        sandbox, transport = Sandbox(), Transport(Rule.of(self.engine.settings))
        wish = {"name": "hook", "event": "order.*", "url": there.url, **wish}
        try:
            found = await checked(wish, SaveChecks(transport, sandbox))
        finally:
            await sandbox.close()
            transport.close()
        async with self.database.transaction() as session:
            return await actions.create(session, found, actor=ADA)

    async def happen(self, **data: Any) -> None:
        async with self.database.transaction() as session:
            emit(session, "order.placed", data)

    async def log(self, until: Callable[[WebhookLog], bool]) -> WebhookLog:
        async with asyncio.timeout(WITHIN_S):
            while True:
                async with self.database.session() as session:
                    logs = list(await session.scalars(sa.select(WebhookLog)))
                if logs and until(logs[0]):
                    return logs[0]
                await asyncio.sleep(0.02)


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    environ = {"DATABASE_URL": database_url, "M_HOME": str(tmp_path), "M_WEBHOOK_ALLOW": "127.0.0.1"}
    async with Engine.create(Settings.from_env(environ), registry=Registry([])) as engine:
        yield Site(engine)


async def test_an_event_arrives_signed_and_its_delivery_ends_well(site: Site) -> None:
    async with receiver() as there, site.clerk():
        _, secret = await site.create(
            there, condition="data.amount > `5`", payload_template='{"n": {{ data.amount }}}'
        )
        await site.happen(amount=3)
        await site.happen(amount=7)
        log = await site.log(lambda log: log.status == "success")
    [request] = there.received
    assert request.body == b'{"n": 7}'
    Verifier(secret).verify(request.body, request.headers)
    assert (log.response_body, log.body, log.attempts) == ("ok", request.body, 1)


async def test_a_failure_that_is_replayed_turns_into_a_success(site: Site) -> None:
    async with receiver(response(500, b"no")) as there, site.clerk():
        await site.create(there, max_retries=0)
        await site.happen()
        log = await site.log(lambda log: log.status == "failed")
        assert (log.response_code, log.response_body) == (500, "no")
        there.answer = response(204)
        async with site.database.transaction() as session:
            await replays.start(session, {"status": "failed"}, actor=ADA)
        log = await site.log(lambda log: log.status == "success")
    assert log.attempts == 2
    assert there.received[0].headers["webhook-id"] == there.received[1].headers["webhook-id"]


async def test_a_clerk_that_ends_leaves_what_hangs_to_the_next(site: Site, monkeypatch) -> None:
    monkeypatch.setattr("worker.webhooks.courier.END_S", 0)

    async def hang(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with receiver(hang) as there:
        await site.create(there, max_retries=0)
        async with site.clerk():
            await site.happen()
            await there.wait_for(1)
        there.answer = response(200)
        async with site.clerk():
            log = await site.log(lambda log: log.status == "success")
    assert log.attempts == 2
