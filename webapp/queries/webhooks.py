"""Webhooks with how they fare: their newest deliveries, how many of them arrived, when the next attempt is due."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.schedules import digest
from worker.webhooks.models import DUE, Webhook, WebhookLog, WebhookState

PAGE = 50
STRIP = 50
"""So many deliveries are shown of each webhook."""
AT_ONCE = 50
LOOKS = {"pending": "queued", "sending": "running"}
"""Which of the jobs' looks a status of a delivery has in the strip."""


@dataclass(frozen=True, slots=True)
class Beat:
    """One delivery in the strip."""

    status: str
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A webhook as pages and API show it. Secrets are not in it; `secret_headers` are names."""

    id: UUID
    name: str
    event: str
    doctype_filter: str | None
    condition: str | None
    url: str
    method: str
    headers: dict[str, Any]
    secret_headers: tuple[str, ...]
    payload_template: str | None
    previous_secret_until: datetime | None
    rotated_at: datetime | None
    timeout_s: float
    retry: str
    max_retries: int
    rate_per_s: float | None
    concurrency: int
    enabled: bool
    disabled_at: datetime | None
    disabled_by: str | None
    disabled_reason: str | None
    created_at: datetime
    created_by: str | None
    updated_at: datetime
    version: int
    rev: int
    failing_since: datetime | None
    failures: int
    held_until: datetime | None
    next_attempt_at: datetime | None
    """When a delivery that failed is tried again."""
    beats: tuple[Beat, ...]

    @property
    def place(self) -> str:
        """Where it goes, without what may be a key: for those who may not edit it."""
        return place_of(self.url)

    @property
    def ended(self) -> int:
        return sum(beat.status in ("success", "failed") for beat in self.beats)

    @property
    def success_rate(self) -> float | None:
        """Of its newest deliveries that ended, from 0 to 1."""
        arrived = sum(beat.status == "success" for beat in self.beats)
        return arrived / self.ended if self.ended else None

    @property
    def p95_seconds(self) -> float | None:
        """How long 95 of 100 of its newest attempts took at the most."""
        took = sorted(beat.duration_seconds for beat in self.beats if beat.duration_seconds is not None)
        return took[min(len(took) - 1, int(len(took) * 0.95))] if took else None

    @property
    def shown_rev(self) -> str:
        """Differs when what is shown differs: also when only a delivery went on."""
        held = (
            self.rev,
            self.failing_since,
            self.failures,
            self.held_until,
            self.next_attempt_at,
            self.beats,
        )
        return digest(held)


def place_of(url: str) -> str:
    """Scheme, host and port of a URL: its path and query may be a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


async def list_webhooks(
    connection: AsyncConnection, *, q: str = "", after: str | None = None, limit: int = PAGE
) -> tuple[list[WebhookView], str | None]:
    """A page of webhooks by name, and the name to go on after."""
    statement = sa.select(Webhook.__table__).where(Webhook.deleted_at.is_(None))
    for word in q.lower().split():
        held = (Webhook.name, Webhook.event)
        statement = statement.where(
            sa.or_(*(sa.func.lower(column).contains(word, autoescape=True) for column in held))
        )
    if after is not None:
        statement = statement.where(Webhook.name > after)
    rows = (await connection.execute(statement.order_by(Webhook.name).limit(limit + 1))).all()
    return await _views(connection, rows[:limit]), rows[limit - 1].name if len(rows) > limit else None


async def load_webhooks(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, WebhookView]:
    """Webhooks by id; those that are not there, or deleted, are absent."""
    statement = sa.select(Webhook.__table__).where(Webhook.id.in_(list(ids)), Webhook.deleted_at.is_(None))
    rows = (await connection.execute(statement)).all()
    return {view.id: view for view in await _views(connection, rows)}


async def one_webhook(connection: AsyncConnection, webhook_id: UUID) -> WebhookView | None:
    return (await load_webhooks(connection, [webhook_id])).get(webhook_id)


async def webhook_names(connection: AsyncConnection) -> list[tuple[UUID, str]]:
    """Id and name of every webhook, by name."""
    statement = sa.select(Webhook.id, Webhook.name).where(Webhook.deleted_at.is_(None)).order_by(Webhook.name)
    return [(row.id, row.name) for row in await connection.execute(statement)]


async def _views(connection: AsyncConnection, rows: Sequence[sa.Row[Any]]) -> list[WebhookView]:
    ids = [row.id for row in rows]
    states = {
        row.webhook_id: row
        for row in await connection.execute(
            sa.select(WebhookState.__table__).where(WebhookState.webhook_id.in_(ids))
        )
    }
    due = await _next_attempts(connection, ids)
    beats = await _beats(connection, ids)
    return [_view(row, states.get(row.id), due.get(row.id), beats.get(row.id, ())) for row in rows]


async def _next_attempts(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, datetime]:
    statement = (
        sa.select(WebhookLog.webhook_id, sa.func.min(WebhookLog.due_at).label("due_at"))
        .where(WebhookLog.webhook_id.in_(ids), sa.text(DUE), WebhookLog.status == "retrying")
        .group_by(WebhookLog.webhook_id)
    )
    return {row.webhook_id: row.due_at for row in await connection.execute(statement)}


async def _beats(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, tuple[Beat, ...]]:
    """The newest deliveries of each webhook, oldest first: one seek for each."""
    found: dict[UUID, list[Beat]] = {}
    for start in range(0, len(ids), AT_ONCE):
        newest = [
            sa.select(
                sa.select(WebhookLog.id)
                .where(WebhookLog.webhook_id == one)
                .order_by(WebhookLog.id.desc())
                .limit(STRIP)
                .subquery()
            )
            for one in ids[start : start + AT_ONCE]
        ]
        columns = (WebhookLog.webhook_id, WebhookLog.status, WebhookLog.duration_ms)
        statement = (
            sa.select(*columns).where(WebhookLog.id.in_(sa.union_all(*newest))).order_by(WebhookLog.id)
        )
        for row in await connection.execute(statement):
            took = None if row.duration_ms is None else row.duration_ms / 1000
            found.setdefault(row.webhook_id, []).append(Beat(LOOKS.get(row.status, row.status), took))
    return {of: tuple(beats) for of, beats in found.items()}


OTHERWISE = ("secret_headers", "failing_since", "failures", "held_until", "next_attempt_at", "beats")
SAME = tuple(name for name in WebhookView.__dataclass_fields__ if name not in OTHERWISE)


def _view(
    row: sa.Row[Any], state: sa.Row[Any] | None, due_at: datetime | None, beats: tuple[Beat, ...]
) -> WebhookView:
    return WebhookView(
        **{name: getattr(row, name) for name in SAME},
        secret_headers=tuple(row.secret_headers),
        failing_since=state.failing_since if state else None,
        failures=state.failures if state else 0,
        held_until=state.held_until if state else None,
        next_attempt_at=due_at,
        beats=beats,
    )
