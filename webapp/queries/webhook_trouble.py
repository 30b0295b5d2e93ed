"""Webhooks that need a person: switched off by the desk itself, or failing for a while."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.accounts.actor import ENGINE
from worker.webhooks.fairness import DOUBTFUL_FAILURES
from worker.webhooks.models import Webhook, WebhookState

FAILING_FOR = timedelta(minutes=5)
"""A deploy of the receiver takes less than this."""
MOST = 20


@dataclass(frozen=True, slots=True)
class Trouble:
    """`off_reason` is set when the desk switched it off; else it has failed `failures` times in a row since `since`."""

    webhook_id: UUID
    name: str
    since: datetime
    off_reason: str | None = None
    failures: int = 0


async def troubled_webhooks(connection: AsyncConnection, now: datetime) -> list[Trouble]:
    """Those that are off first, then those that fail for longest."""
    switched_off = sa.and_(~Webhook.enabled, Webhook.disabled_by == ENGINE.name)
    failing = sa.and_(
        Webhook.enabled,
        WebhookState.failing_since < now - FAILING_FOR,
        WebhookState.failures >= DOUBTFUL_FAILURES,
    )
    since = sa.func.coalesce(Webhook.disabled_at, WebhookState.failing_since)
    rows = await connection.execute(
        sa.select(
            Webhook.id, Webhook.name, Webhook.enabled, Webhook.disabled_at, Webhook.disabled_reason,
            WebhookState.failing_since, WebhookState.failures,
        )
        .join(WebhookState, WebhookState.webhook_id == Webhook.id)
        .where(Webhook.deleted_at.is_(None), sa.or_(switched_off, failing))
        .order_by(Webhook.enabled, since)
        .limit(MOST)
    )  # fmt: skip
    return [
        Trouble(row.id, row.name, row.failing_since, failures=row.failures)
        if row.enabled
        else Trouble(row.id, row.name, row.disabled_at, row.disabled_reason or "no reason was kept")
        for row in rows
    ]
