"""Claiming deliveries: a few statements turn due rows into rows that this courier holds, fenced by a new epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.base import new_id
from worker.db.session import Database, changed
from worker.webhooks.fairness import Room, Wish, pace, share
from worker.webhooks.models import DUE, Webhook, WebhookAttempt, WebhookLog, WebhookState
from worker.webhooks.ports import Delivery

LOST_BATCH: Final = 100
LOST: Final = "Its courier died or was cut off while it sent this: nobody knows whether it arrived"

_WAITING = sa.text(DUE)  # literals, so that the planner sees the partial indexes
_SENDING = sa.text("status = 'sending'")
_TEST = sa.text("trigger = 'test'")
_TAKEN = (
    "id", "epoch", "webhook_id", "event_id", "event", "next_trigger", "tries", "attempts", "asked_by", "body", "rev",
)  # fmt: skip
_OF_WEBHOOK = (
    "url", "method", "headers", "secret_headers", "payload_template", "secret", "previous_secret", "timeout_s", "retry", "max_retries",
)  # fmt: skip


async def claim(
    database: Database, courier_id: UUID, room: Room, slow: Collection[UUID], lease_s: float
) -> tuple[list[Delivery], set[UUID]]:
    """Claims what is due, fairly over all webhooks and within their limits; answers it, and which webhooks are doubtful.

    A row of `webhook_states` is locked for each webhook, so the limits hold over any number of couriers.
    """
    async with database.read() as connection:
        wanted = await _wishes(connection, await database.now(connection), slow)
    if not wanted or (room.sound <= 0 and room.doubtful <= 0):
        return [], set()
    async with database.transaction() as session:
        now = await database.now(session)
        mine = await _lock(session, [wish.webhook_id for wish in wanted])
        wishes = await _wishes(session, now, slow, mine)
        given = share(wishes, room, now)
        picks = [(wish, given[wish.webhook_id]) for wish in wishes if wish.webhook_id in given]
        deliveries = await _take(session, courier_id, picks, now, now + timedelta(seconds=lease_s))
        await _pace(session, wishes, deliveries, now)
    return deliveries, {wish.webhook_id for wish in wishes if wish.doubtful}


async def renew(database: Database, courier_id: UUID, ids: Sequence[UUID], lease_s: float) -> None:
    """Says that this courier still sends these."""
    async with database.transaction() as session:
        now = await database.now(session)
        await session.execute(
            sa.update(WebhookLog)
            .where(WebhookLog.id.in_(ids), WebhookLog.claimed_by == courier_id, _SENDING)
            .values(claimed_until=now + timedelta(seconds=lease_s))
            .execution_options(synchronize_session=False)
        )


async def take_back_lost(database: Database, courier_id: UUID | None = None) -> int:
    """Makes due again what couriers that died had under way, or what this one leaves; it costs them no retry."""
    if courier_id is None:
        async with database.read() as connection:
            now = await database.now(connection)
            found = sa.select(sa.literal(1)).select_from(WebhookLog)
            lost = _SENDING & (WebhookLog.claimed_until < now)
            if (await connection.execute(found.where(lost).limit(1))).first() is None:
                return 0
    async with database.transaction() as session:
        now = await database.now(session)
        whose = WebhookLog.claimed_until < now if courier_id is None else WebhookLog.claimed_by == courier_id
        statement = sa.select(WebhookLog).where(_SENDING, whose).order_by(WebhookLog.id).limit(LOST_BATCH)
        logs = (await session.scalars(statement.with_for_update(skip_locked=True))).all()
        webhooks = await _webhooks(session, {log.webhook_id for log in logs})
        for log in logs:
            session.add(_lost_attempt(log, webhooks.get(log.webhook_id), now))
            log.status, log.due_at, log.tries = "retrying", now, max(0, log.tries - 1)
            log.error, log.error_class = LOST, "lost"
            log.claimed_by = log.claimed_until = None
            log.epoch, log.rev = log.epoch + 1, log.rev + 1
            changed(session, "webhook_log", log.id, log.rev)
        return len(logs)


async def _wishes(
    connection: AsyncConnection | AsyncSession,
    now: datetime,
    slow: Collection[UUID],
    among: Sequence[UUID] | None = None,
) -> list[Wish]:
    due = _first_due(now)
    test_due = _first_due(now, _TEST)
    sending = (
        sa.select(sa.func.count()).where(WebhookLog.webhook_id == Webhook.id, _SENDING).scalar_subquery()
    )
    free = sa.or_(WebhookState.held_until.is_(None), WebhookState.held_until <= now)
    open_ = sa.and_(Webhook.enabled, free)
    first = sa.case((open_, due), else_=test_due)
    statement = (
        sa.select(
            Webhook.id.label("webhook_id"), Webhook.concurrency, Webhook.rate_per_s, sending.label("sending"),
            WebhookState.failures, WebhookState.paced_to,
            sa.type_coerce(first, WebhookLog.due_at.type).label("due_at"), sa.not_(open_).label("only_tests"),
        )
        .join(WebhookState, WebhookState.webhook_id == Webhook.id)
        .where(Webhook.deleted_at.is_(None), first.is_not(None))
    )  # fmt: skip
    if among is not None:
        statement = statement.where(Webhook.id.in_(among))
    rows = (await connection.execute(statement)).mappings()
    return [Wish(**row, slow=row["webhook_id"] in slow) for row in rows]


def _first_due(now: datetime, *which: sa.TextClause) -> sa.ScalarSelect[Any]:
    first = sa.select(WebhookLog.due_at).where(
        WebhookLog.webhook_id == Webhook.id, _WAITING, WebhookLog.due_at <= now, *which
    )
    return first.order_by(WebhookLog.due_at).limit(1).correlate(Webhook).scalar_subquery()


async def _lock(session: AsyncSession, webhook_ids: Sequence[UUID]) -> list[UUID]:
    """Those whose limits nobody else looks at just now."""
    statement = sa.select(WebhookState.webhook_id).where(WebhookState.webhook_id.in_(webhook_ids))
    locked = statement.order_by(WebhookState.webhook_id).with_for_update(skip_locked=True)
    return list(await session.scalars(locked))


async def _take(
    session: AsyncSession,
    courier_id: UUID,
    picks: Sequence[tuple[Wish, int]],
    now: datetime,
    until: datetime,
) -> list[Delivery]:
    if not picks:
        return []
    webhooks = await _webhooks(session, [wish.webhook_id for wish, _ in picks])
    oldest = [_oldest(wish, count, now) for wish, count in picks]
    statement = (
        sa.update(WebhookLog)
        .where(WebhookLog.id.in_(sa.union_all(*oldest)), _WAITING)
        .values(
            status="sending",
            claimed_by=courier_id,
            claimed_at=now,
            claimed_until=until,
            attempted_at=now,
            ended_at=None,
            tries=WebhookLog.tries + 1,
            attempts=WebhookLog.attempts + 1,
            epoch=WebhookLog.epoch + 1,
            rev=WebhookLog.rev + 1,
        )
        .returning(*(getattr(WebhookLog, name) for name in _TAKEN))
        .execution_options(synchronize_session=False)
    )
    rows = (await session.execute(statement)).all()
    for row in rows:
        changed(session, "webhook_log", row.id, row.rev)
    return [_delivery(row, webhooks[row.webhook_id]) for row in rows]


def _oldest(wish: Wish, count: int, now: datetime) -> sa.Select[Any]:
    due = sa.select(WebhookLog.id).where(
        WebhookLog.webhook_id == wish.webhook_id, _WAITING, WebhookLog.due_at <= now
    )
    if wish.only_tests:
        due = due.where(_TEST)
    return sa.select(due.order_by(WebhookLog.due_at).limit(count).subquery().c.id)


def _delivery(row: Any, webhook: Webhook) -> Delivery:
    return Delivery(
        id=row.id,
        epoch=row.epoch,
        webhook_id=row.webhook_id,
        webhook_name=webhook.name,
        event_id=row.event_id,
        event=row.event,
        trigger=row.next_trigger,
        tries=row.tries,
        number=row.attempts,
        asked_by=row.asked_by,
        body=row.body,
        previous_until=webhook.previous_secret_until,
        **{name: getattr(webhook, name) for name in _OF_WEBHOOK},
    )


async def _pace(
    session: AsyncSession, wishes: Sequence[Wish], deliveries: Sequence[Delivery], now: datetime
) -> None:
    for wish in wishes:
        started = sum(delivery.webhook_id == wish.webhook_id for delivery in deliveries)
        if wish.rate_per_s is None or not started:
            continue
        await session.execute(
            sa.update(WebhookState)
            .where(WebhookState.webhook_id == wish.webhook_id)
            .values(paced_to=pace(wish.paced_to, wish.rate_per_s, started, now))
            .execution_options(synchronize_session=False)
        )


async def _webhooks(session: AsyncSession, ids: Collection[UUID]) -> dict[UUID, Webhook]:
    found = await session.scalars(sa.select(Webhook).where(Webhook.id.in_(list(ids))))
    return {webhook.id: webhook for webhook in found}


def _lost_attempt(log: WebhookLog, webhook: Webhook | None, now: datetime) -> WebhookAttempt:
    return WebhookAttempt(
        id=new_id(), webhook_log_id=log.id, webhook_id=log.webhook_id, number=log.attempts, trigger=log.next_trigger,
        user_id=log.asked_by, outcome="lost", started_at=log.claimed_at or now, ended_at=now,
        method=webhook.method if webhook else "POST", url=webhook.url if webhook else "", request_headers={},
        response_truncated=False, error_class="lost", error=LOST, next_attempt_at=now,
    )  # fmt: skip
