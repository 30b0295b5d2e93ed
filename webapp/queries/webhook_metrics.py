"""What /metrics shows of webhooks, from ranges of indexes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.webhooks.models import DUE, Webhook, WebhookAttempt, WebhookLog

WINDOW = timedelta(minutes=5)
WINDOW_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class WebhookFigures:
    """By the webhook's name."""

    attempts: dict[tuple[str, str], float] = field(default_factory=dict)
    """By name and outcome, of the last five minutes."""
    waiting: dict[str, float] = field(default_factory=dict)
    enabled: dict[str, float] = field(default_factory=dict)


async def webhook_figures(connection: AsyncConnection, now: datetime) -> WebhookFigures:
    statement = sa.select(Webhook.id, Webhook.name, Webhook.enabled).where(Webhook.deleted_at.is_(None))
    names = {row.id: row for row in await connection.execute(statement)}
    newest = (
        sa.select(WebhookAttempt.webhook_id, WebhookAttempt.outcome)
        .where(WebhookAttempt.id >= _first_id(now - WINDOW))
        .order_by(WebhookAttempt.id.desc())
        .limit(WINDOW_ROWS)
    ).subquery()
    key = (newest.c.webhook_id, newest.c.outcome)
    attempts = await connection.execute(sa.select(*key, sa.func.count()).group_by(*key))
    waiting = await connection.execute(
        sa.select(WebhookLog.webhook_id, sa.func.count()).where(sa.text(DUE)).group_by(WebhookLog.webhook_id)
    )
    return WebhookFigures(
        attempts={(names[of].name, outcome): float(n) for of, outcome, n in attempts if of in names},
        waiting={names[of].name: float(n) for of, n in waiting if of in names},
        enabled={row.name: float(row.enabled) for row in names.values()},
    )


def _first_id(at: datetime) -> UUID:
    """The least UUIDv7 (RFC 9562) that could be made at this time."""
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62))
