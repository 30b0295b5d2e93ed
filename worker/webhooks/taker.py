"""Every event that a webhook wants becomes a WebhookLog, in the transaction that marks it as handed over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.base import new_id
from worker.db.session import Database, changed
from worker.events.takers import Event, NotPrepared, Recorded
from worker.webhooks.matching import Subscription, Why, held_back, judged, meant
from worker.webhooks.models import Webhook, WebhookLog, WebhookMiss
from worker.webhooks.ports import Conditions
from worker.webhooks.sandbox import BLAMED_S, Verdict
from worker.webhooks.standing import switch_off

log = structlog.get_logger(__name__)

STRIKES: Final = 3
"""So often may the condition of a webhook be killed in a row, a minute apart; then the webhook is switched off."""
DUE: Final = "webhook_due"
"""The kind of change that wakes couriers: a webhook has deliveries that are due."""


@dataclass(slots=True)
class Strikes:
    """How often a condition was killed in a row, and when last."""

    count: int = 0
    at: float = float("-inf")


class WebhookTaker:
    """Taker of the events that webhooks want. What their conditions say is found out before anything is locked."""

    def __init__(self, conditions: Conditions, clock: Callable[[], float] = time.monotonic) -> None:
        self._conditions = conditions
        self._clock = clock
        self._recorded_at: dict[str, datetime] = {}
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._strikes: dict[UUID, Strikes] = {}

    async def patterns(self, connection: AsyncConnection | AsyncSession) -> Sequence[str]:
        return sorted({webhook.event for webhook in await subscriptions(connection)})

    async def prepare(self, database: Database, events: Sequence[Recorded]) -> None:
        self._recorded_at = {str(each.event["event_id"]): each.at for each in events}
        self._verdicts = {}
        async with database.read() as connection:
            webhooks = await subscriptions(connection)
        for webhook in webhooks:
            if webhook.condition is not None and webhook.enabled:
                await self._judge(database, webhook, [each.event for each in events])

    async def take(self, session: AsyncSession, events: Sequence[Event]) -> None:
        now = await session.sync_session.info["database"].now(session)
        logs: list[dict[str, Any]] = []
        misses: list[dict[str, Any]] = []
        for webhook in await subscriptions(session):
            for event in events:
                if meant(webhook, event) is not None:
                    continue
                if (why := self._why_not(webhook, event)) is None:
                    logs.append(log_of(webhook, event, now))
                else:
                    misses.append(_miss(webhook, event, why, now))
        await insert_logs(session, logs)
        await _insert_once(session, WebhookMiss, misses, ["event_id", "webhook_id"])

    def _why_not(self, webhook: Subscription, event: Event) -> Why | None:
        event_id = str(event["event_id"])
        if event_id not in self._recorded_at:
            raise NotPrepared
        if (why := held_back(webhook, event, self._recorded_at[event_id])) or webhook.condition is None:
            return why
        verdict = self._verdicts.get((webhook.condition, event_id))
        if verdict is None:
            raise NotPrepared
        return judged(webhook, verdict)

    async def _judge(self, database: Database, webhook: Subscription, events: Iterable[Event]) -> None:
        assert webhook.condition is not None
        for event in events:
            key = (webhook.condition, str(event["event_id"]))
            if key in self._verdicts or meant(webhook, event) is not None:
                continue
            verdict = self._verdicts[key] = await self._conditions.condition(webhook.condition, event)
            if not verdict.killed:
                self._strikes.pop(webhook.id, None)
            elif self._struck(webhook.id) >= STRIKES:
                del self._strikes[webhook.id]
                reason = f"its condition was ended {STRIKES} times in a row: {verdict.error}"
                async with database.transaction() as session:
                    await switch_off(session, webhook.id, reason)
                return

    def _struck(self, webhook_id: UUID) -> int:
        """A condition that was killed is refused for a minute, which is no strike of its own."""
        now = self._clock()
        strikes = self._strikes.setdefault(webhook_id, Strikes())
        if now - strikes.at >= BLAMED_S:
            strikes.count, strikes.at = strikes.count + 1, now
        return strikes.count


async def subscriptions(connection: AsyncConnection | AsyncSession) -> list[Subscription]:
    """Every webhook that is not deleted, by age."""
    columns = (
        Webhook.id, Webhook.name, Webhook.event, Webhook.doctype_filter, Webhook.condition, Webhook.enabled,
        Webhook.disabled_reason, Webhook.created_at,
    )  # fmt: skip
    statement = sa.select(*columns).where(Webhook.deleted_at.is_(None)).order_by(Webhook.id)
    return [Subscription(*row) for row in (await connection.execute(statement)).all()]


def log_of(webhook: Subscription | Webhook, event: Event, now: datetime) -> dict[str, Any]:
    """The columns of a new delivery that is due at once."""
    return {
        "id": new_id(),
        "webhook_id": webhook.id,
        "webhook_name": webhook.name,
        "event_id": str(event["event_id"]),
        "event_type": str(event["event_type"]),
        "doctype": event.get("doctype"),
        "event": event,
        "status": "pending",
        "trigger": "auto",
        "next_trigger": "auto",
        "due_at": now,
        "tries": 0,
        "attempts": 0,
        "epoch": 0,
        "created_at": now,
        "rev": 1,
    }


async def insert_logs(session: AsyncSession, logs: list[dict[str, Any]]) -> None:
    """Stores deliveries, each event once for each webhook, and wakes the couriers."""
    await _insert_once(session, WebhookLog, logs, ["webhook_id", "event_id"])
    for each in logs:
        changed(session, "webhook_log", each["id"], 1)
    for webhook_id in {each["webhook_id"] for each in logs}:
        changed(session, DUE, webhook_id, 1)


def _miss(webhook: Subscription, event: Event, why: Why, now: datetime) -> dict[str, Any]:
    return {
        "event_id": str(event["event_id"]),
        "webhook_id": webhook.id,
        "event_type": str(event["event_type"]),
        "reason": why.reason,
        "detail": why.detail,
        "at": now,
    }


async def _insert_once(session: AsyncSession, table: Any, rows: list[dict[str, Any]], key: list[str]) -> None:
    if not rows:
        return
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    connection = await session.connection()
    await connection.execute(insert(table.__table__).on_conflict_do_nothing(index_elements=key), rows)
