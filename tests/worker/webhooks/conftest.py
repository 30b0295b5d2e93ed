"""A database with webhooks on it, a clock that tests move, and a receiver behind the port that sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from worker.accounts.actor import Actor
from worker.db.session import Database, Pending, emit
from worker.events.models import OutboxRow
from worker.events.takers import hand_over
from worker.joblogs.enqueue import Reception
from worker.settings import Settings
from worker.webhooks import actions, replays
from worker.webhooks.claims import take_back_lost
from worker.webhooks.courier import Courier
from worker.webhooks.matching import Event
from worker.webhooks.models import Webhook, WebhookAttempt, WebhookLog, WebhookMiss, WebhookState
from worker.webhooks.ports import Delivery, Sent
from worker.webhooks.retries import Outcome
from worker.webhooks.sandbox import Verdict
from worker.webhooks.taker import WebhookTaker
from worker.webhooks.wishes import checked

ADA = Actor("ada", role="admin")
OTTO = Actor("otto", role="operator")
VERA = Actor("vera", role="viewer")
START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


class Fine:
    """Checks that find nothing wrong but what holds `bad`."""

    async def url(self, url: str) -> str | None:
        return "is refused" if "bad" in url else None

    async def condition(self, condition: str) -> str | None:
        return "is no JMESPath" if "bad" in condition else None

    async def payload_template(self, template: str) -> str | None:
        return "is no template" if "bad" in template else None


class Conditions:
    """A condition is the word that a good event has as `data.word`; `kill` is killed, `wrong` cannot be evaluated."""

    def __init__(self) -> None:
        self.judged = 0

    async def condition(self, condition: str, event: Event) -> Verdict:
        self.judged += 1
        if condition == "kill":
            return Verdict(False, error="it ran for longer than 500 ms", killed=True)
        if condition == "wrong":
            return Verdict(False, error="it compares a number with a list")
        word = event["data"].get("word")
        return Verdict(word == condition, value=str(word))


class Receiver:
    """Answers each delivery as the test says: a status, an Outcome, or a future to wait for."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.got: list[Delivery] = []
        self.answers: dict[str, Any] = {}
        self.under_way: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def send(self, delivery: Delivery) -> Sent:
        url = delivery.url
        self.got.append(delivery)
        self.under_way[url] = self.under_way.get(url, 0) + 1
        self.most[url] = max(self.most.get(url, 0), self.under_way[url])
        answer = self.answers.get(url, 200)
        try:
            if isinstance(answer, asyncio.Future):
                answer = await asyncio.shield(answer)
        finally:
            self.under_way[url] -= 1
        outcome = answer if isinstance(answer, Outcome) else Outcome(status_code=answer)
        now = self.clock()
        body = delivery.body or f"body of attempt {delivery.number}".encode()
        return Sent(outcome, now, now, body=body, peer_ip="192.0.2.7", response_body="ok", total_ms=12.5)

    def times(self, url: str) -> int:
        return sum(delivery.url == url for delivery in self.got)


class Desk:
    """Shortcuts to what the slice does and to what it wrote."""

    def __init__(self, database_url: str, settings: Settings) -> None:
        self.now = START
        self.database = Database(database_url, clock=lambda: self.now)
        self.database.info["reception"] = Reception(None, settings)  # type: ignore[arg-type]
        self.database.on_commit = self.listen
        self.told: list[Pending] = []
        self.receiver = Receiver(lambda: self.now)
        self.conditions = Conditions()
        self.taker = WebhookTaker(self.conditions, clock=self.seconds)
        self.courier = Courier(self.database, self.receiver)

    def seconds(self) -> float:
        return self.now.timestamp()

    async def listen(self, pending: Pending) -> None:
        self.told.append(pending)

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)

    async def create(self, name: str = "hook", event: str = "order.*", **wish: Any) -> Webhook:
        """A webhook that was made before what happens next."""
        wish = {"name": name, "event": event, "url": f"https://{name}.example/", **wish}
        async with self.database.transaction() as session:
            webhook, _ = await actions.create(session, await checked(wish, Fine()), actor=ADA)
        return webhook

    async def edit(self, webhook_id: UUID, **changes: Any) -> Webhook:
        return await self.do(actions.edit, webhook_id, await checked(changes, Fine(), whole=False))

    async def do(self, action: Any, *given: Any, actor: Actor = ADA, **options: Any) -> Any:
        async with self.database.transaction() as session:
            return await action(session, *given, actor=actor, **options)

    async def happen(self, event_type: str = "order.placed", **data: Any) -> str:
        """An event; answers its id."""
        async with self.database.transaction() as session:
            emit(session, event_type, data)
            [event] = session.sync_session.info["pending"].events
        return str(event["event_id"])

    async def match(self) -> int:
        """Hands over what happened until nothing is left."""
        done = 0
        while looked := await hand_over(self.database, [self.taker]):
            done += looked
        return done

    async def send(self, courier: Courier | None = None) -> int:
        """Sends what is due, until nothing is."""
        courier, done = courier or self.courier, 0
        await take_back_lost(self.database)
        while started := await courier():
            done += started
            await courier.settle()
        return done

    async def deliver(self, event_type: str = "order.placed", **data: Any) -> str:
        event_id = await self.happen(event_type, **data)
        await self.match()
        await self.send()
        return event_id

    async def replay(self) -> int:
        steps = 0
        while await replays.run_pending(self.database):
            steps += 1
        return steps

    async def logs(self, webhook: Webhook | None = None) -> list[WebhookLog]:
        where = [WebhookLog.webhook_id == webhook.id] if webhook else []
        return await self._rows(sa.select(WebhookLog).where(*where).order_by(WebhookLog.id))

    async def log(self, webhook: Webhook) -> WebhookLog:
        [found] = await self.logs(webhook)
        return found

    async def attempts(self, log: WebhookLog) -> list[WebhookAttempt]:
        where = WebhookAttempt.webhook_log_id == log.id
        return await self._rows(sa.select(WebhookAttempt).where(where).order_by(WebhookAttempt.number))

    async def misses(self, webhook: Webhook) -> list[tuple[str, str | None]]:
        where = WebhookMiss.webhook_id == webhook.id
        found = await self._rows(sa.select(WebhookMiss).where(where).order_by(WebhookMiss.event_id))
        return [(miss.reason, miss.detail) for miss in found]

    async def state(self, webhook: Webhook) -> WebhookState:
        [found] = await self._rows(sa.select(WebhookState).where(WebhookState.webhook_id == webhook.id))
        return found

    async def row(self, webhook: Webhook) -> Webhook:
        [found] = await self._rows(sa.select(Webhook).where(Webhook.id == webhook.id))
        return found

    async def put(self, table: Any, where: Any, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(sa.update(table).where(where).values(**values))

    async def events(self, prefix: str = "webhook.") -> list[Mapping[str, Any]]:
        rows = await self._rows(sa.select(OutboxRow).order_by(OutboxRow.id))
        return [event for row in rows for event in row.events if event["event_type"].startswith(prefix)]

    async def _rows(self, statement: Any) -> list[Any]:
        async with self.database.session() as session:
            return list(await session.scalars(statement))


@pytest.fixture
async def desk(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """Once on SQLite and once on PostgreSQL: for what SQL decides."""
    async for made in _desk(database_url, tmp_path):
        yield made


@pytest.fixture
async def sqlite_desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async for made in _desk(sqlite_url, tmp_path):
        yield made


async def _desk(url: str, home: Path) -> AsyncIterator[Desk]:
    desk = Desk(url, Settings.from_env({"DATABASE_URL": url, "M_HOME": str(home)}))
    yield desk
    await desk.courier.stop()
    await desk.database.close()
