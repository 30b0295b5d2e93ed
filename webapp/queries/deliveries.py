"""Deliveries of webhooks: a page by filter, one with its attempts, and why an event was or was not delivered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.roles import ADMIN_DOCTYPES, may_see
from webapp.queries.paging import Cursor, Page
from webapp.queries.schedules import digest
from webapp.queries.webhooks import place_of
from worker.webhooks import filters
from worker.webhooks.matching import Event, Subscription, Why, meant
from worker.webhooks.models import Webhook, WebhookAttempt, WebhookLog, WebhookMiss, WebhookReplay
from worker.webhooks.taker import subscriptions

PAGE = 25


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One event to one webhook, without the event and the body."""

    id: UUID
    webhook_id: UUID
    webhook_name: str
    event_id: str
    event_type: str
    doctype: str | None
    status: str
    trigger: str
    due_at: datetime
    attempts: int
    asked_by: str | None
    response_code: int | None
    error: str | None
    error_class: str | None
    duration_ms: float | None
    created_at: datetime
    attempted_at: datetime | None
    ended_at: datetime | None
    rev: int

    @property
    def admin_only(self) -> bool:
        return self.doctype in ADMIN_DOCTYPES

    @property
    def can_replay(self) -> bool:
        return self.status in ("retrying", "success", "failed")

    @property
    def outcome(self) -> str:
        """What the last attempt came to, in a few words."""
        if self.response_code is not None and self.error_class in (None, "status", "redirect"):
            return str(self.response_code)
        return ": ".join(word for word in (self.error_class, self.error) if word)


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One request; the times of its phases are milliseconds."""

    number: int
    trigger: str
    user_id: str | None
    outcome: str
    started_at: datetime
    ended_at: datetime
    method: str
    url: str
    request_headers: dict[str, Any]
    peer_ip: str | None
    status_code: int | None
    response_headers: dict[str, Any] | None
    response_body: str | None
    response_truncated: bool
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    total_ms: float | None
    error_class: str | None
    error: str | None
    next_attempt_at: datetime | None

    @property
    def place(self) -> str:
        """Where it went, without what may be a key."""
        return place_of(self.url)

    @property
    def phases(self) -> list[tuple[str, float]]:
        found = (
            ("name", self.dns_ms), ("connect", self.connect_ms), ("TLS", self.tls_ms), ("first byte", self.first_byte_ms),
        )  # fmt: skip
        return [(word, ms) for word, ms in found if ms is not None]


@dataclass(frozen=True, slots=True)
class WholeDelivery:
    """A delivery with the event, the exact bytes and every attempt."""

    view: DeliveryView
    event: dict[str, Any]
    body: str | None
    body_hash: str | None
    response_body: str | None
    attempts: tuple[AttemptView, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What one webhook made of an event: a delivery, or why there is none."""

    webhook_id: UUID
    webhook_name: str
    delivery: DeliveryView | None
    why: Why | None


@dataclass(frozen=True, slots=True)
class MissView:
    """An event that a webhook's pattern means and that was not delivered to it."""

    event_id: str
    event_type: str
    reason: str
    detail: str | None
    at: datetime


SAME = tuple(DeliveryView.__dataclass_fields__)
COLUMNS = [getattr(WebhookLog, name) for name in SAME]
ATTEMPT = tuple(AttemptView.__dataclass_fields__)


async def list_deliveries(
    connection: AsyncConnection,
    wanted: Mapping[str, Any],
    role: str,
    *,
    cursor: Cursor | None = None,
    limit: int = PAGE,
) -> Page[DeliveryView]:
    """A page of the deliveries that a checked filter means, newest first."""
    statement = sa.select(*COLUMNS).where(*filters.conditions(wanted), *visible_to(role))
    if cursor is not None:
        statement = statement.where(WebhookLog.id < cursor.id)
    rows = (await connection.execute(statement.order_by(WebhookLog.id.desc()).limit(limit + 1))).all()
    more = str(Cursor("older", rows[limit - 1].id)) if len(rows) > limit else None
    return Page([_view(row) for row in rows[:limit]], more)


async def load_deliveries(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, DeliveryView]:
    statement = sa.select(*COLUMNS).where(WebhookLog.id.in_(list(ids)))
    return {row.id: _view(row) for row in await connection.execute(statement)}


async def one_delivery(connection: AsyncConnection, log_id: UUID, role: str) -> WholeDelivery | None:
    """The delivery of this id, if it is still kept and this role may see it."""
    wanted = sa.select(WebhookLog.__table__).where(WebhookLog.id == log_id, *visible_to(role))
    row = (await connection.execute(wanted)).first()
    if row is None:
        return None
    tried = sa.select(WebhookAttempt.__table__).where(WebhookAttempt.webhook_log_id == log_id)
    attempts = (await connection.execute(tried.order_by(WebhookAttempt.number.desc()).limit(100))).all()
    return WholeDelivery(
        view=_view(row),
        event=row.event,
        body=None if row.body is None else row.body.decode("utf-8", "replace"),
        body_hash=row.body_hash,
        response_body=row.response_body,
        attempts=tuple(AttemptView(**{name: getattr(one, name) for name in ATTEMPT}) for one in attempts),
    )


async def told_of(connection: AsyncConnection, event: Event) -> list[Told]:
    """What every webhook made of an event, those it was delivered to first. Deleted webhooks keep their deliveries."""
    event_id = str(event.get("event_id"))
    logs = sa.select(*COLUMNS).where(WebhookLog.event_id == event_id).order_by(WebhookLog.id).limit(200)
    delivered = [
        Told(row.webhook_id, row.webhook_name, _view(row), None) for row in await connection.execute(logs)
    ]
    have = {told.webhook_id for told in delivered}
    misses = await _misses_of(connection, event_id)
    return delivered + [
        Told(webhook.id, webhook.name, None, why_not(webhook, event, misses.get(webhook.id)))
        for webhook in await subscriptions(connection)
        if webhook.id not in have
    ]


async def told_one(connection: AsyncConnection, event: Event, webhook_id: UUID) -> Told | None:
    """What one webhook made of an event; None when there is no such webhook."""
    found = await told_of(connection, event)
    return next((told for told in found if told.webhook_id == webhook_id), None)


def why_not(webhook: Subscription, event: Event, recorded: Why | None) -> Why:
    """What was decided when the event came; else what the webhook as it is now would say."""
    if recorded is not None:
        return recorded
    if (why := meant(webhook, event)) is not None:
        return why
    return Why("waiting", "it has not been handed over yet, or the webhook has been changed since")


async def misses_of_webhook(
    connection: AsyncConnection, webhook_id: UUID, role: str, limit: int = PAGE
) -> list[MissView]:
    """The newest events that it was not told of although its pattern means them."""
    statement = (
        sa.select(WebhookMiss.__table__)
        .where(WebhookMiss.webhook_id == webhook_id)
        .order_by(WebhookMiss.at.desc())
        .limit(limit)
    )
    same = tuple(MissView.__dataclass_fields__)
    rows = await connection.execute(statement)
    shown = may_see(role, "admin")
    return [
        MissView(**{name: getattr(row, name) for name in same})
        for row in rows
        if shown or not row.event_type.startswith("doc.")
    ]


async def _misses_of(connection: AsyncConnection, event_id: str) -> dict[UUID, Why]:
    statement = sa.select(WebhookMiss.__table__).where(WebhookMiss.event_id == event_id)
    return {row.webhook_id: Why(row.reason, row.detail or "") for row in await connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class ReplayView:
    """A planned batch and how far it has come."""

    id: UUID
    filter: dict[str, Any]
    cutoff: datetime
    rate_per_s: float
    status: str
    total: int
    done: int
    refused: int
    refusals: list[dict[str, Any]]
    user_id: str | None
    created_at: datetime
    ended_at: datetime | None
    stop_requested: bool
    rev: int

    @property
    def share(self) -> float:
        if self.ended_at is not None and self.status == "done":
            return 1.0
        return min(1.0, (self.done + self.refused) / self.total) if self.total else 0.0


async def load_replays(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, ReplayView]:
    statement = sa.select(WebhookReplay.__table__).where(WebhookReplay.id.in_(list(ids)))
    same = tuple(ReplayView.__dataclass_fields__)
    return {
        row.id: ReplayView(**{name: getattr(row, name) for name in same})
        for row in await connection.execute(statement)
    }


def rev_of(deliveries: Sequence[DeliveryView]) -> str:
    """Differs when a list of deliveries shows something else."""
    return digest([(one.id, one.rev) for one in deliveries])


def visible_to(role: str) -> list[sa.ColumnElement[bool]]:
    """Facts about people are for admins, and so is what was sent of them."""
    if may_see(role, "admin"):
        return []
    return [sa.or_(WebhookLog.doctype.is_(None), WebhookLog.doctype.not_in(ADMIN_DOCTYPES))]


def _view(row: sa.Row[Any]) -> DeliveryView:
    return DeliveryView(**{name: getattr(row, name) for name in SAME})


async def names_of(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, str]:
    """Names of webhooks, deleted ones too."""
    statement = sa.select(Webhook.id, Webhook.name).where(Webhook.id.in_(list(ids)))
    return {row.id: row.name for row in await connection.execute(statement)}
