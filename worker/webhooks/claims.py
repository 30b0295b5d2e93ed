"""Claiming deliveries: a few statements turn due rows into rows that this courier holds, fenced by a new epoch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.base import new_id
from worker.db.session import Database, changed
from worker.process.models import Worker
from worker.webhooks.fairness import Room, Wish, pace, share
from worker.webhooks.models import DUE, Webhook, WebhookAttempt, WebhookLog, WebhookState
from worker.webhooks.ports import Delivery

LOST_BATCH: Final = 100
LOST: Final = "Its courier died or was cut off while it sent this: nobody knows whether it arrived"

_WAITING = sa.text(DUE)  # literals, so that the planner sees the partial indexes
_SENDING = sa.text("status = 'sending'")
IS_TEST: Final = "trigger = 'test'"
_TEST = sa.text(IS_TEST)
_TAKEN = (
    "id", "epoch", "webhook_id", "event_id", "event", "next_trigger", "tries", "attempts", "asked_by", "body", "rev", "due_at",
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
        locked = await session.scalars(_LOCK, {"among": [wish.webhook_id for wish in wanted]})
        wishes = await _wishes(session, now, slow, locked.all())
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
            if (await connection.execute(_LOST, {"now": now})).first() is None:
                return 0
    async with database.transaction() as session:
        now = await database.now(session)
        whose = _is_lost(now) if courier_id is None else WebhookLog.claimed_by == courier_id
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
    """The webhooks with deliveries that are due, of all or of these."""
    if among is None:
        found = await connection.execute(_WISHES, {"now": now})
    else:
        found = await connection.execute(_WISHES_AMONG, {"now": now, "among": among})
    return [Wish(**row, slow=row["webhook_id"] in slow) for row in found.mappings()]


async def _take(
    session: AsyncSession,
    courier_id: UUID,
    picks: Sequence[tuple[Wish, int]],
    now: datetime,
    until: datetime,
) -> list[Delivery]:
    if not picks:
        return []
    values: dict[str, Any] = {"now": now}
    for n, (wish, count) in enumerate(picks):
        values |= {f"webhook{n}": wish.webhook_id, f"count{n}": count}
    oldest = await session.scalars(_oldest(tuple(wish.only_tests for wish, _ in picks)), values)
    rows = (
        await session.execute(
            _CLAIM, {"ids": oldest.all(), "courier": courier_id, "now": now, "until": until}
        )
    ).all()
    webhooks = await _webhooks(session, [wish.webhook_id for wish, _ in picks])
    for row in rows:
        changed(session, "webhook_log", row.id, row.rev)
    return [_delivery(row, webhooks[row.webhook_id]) for row in rows]


# Statements are made once: making them takes longer than what the database does with them.

_NOW = sa.bindparam("now", type_=WebhookLog.due_at.type)


def _first_due(*which: sa.TextClause) -> sa.ScalarSelect[Any]:
    first = sa.select(WebhookLog.due_at).where(
        WebhookLog.webhook_id == Webhook.id, _WAITING, WebhookLog.due_at <= _NOW, *which
    )
    return first.order_by(WebhookLog.due_at).limit(1).correlate(Webhook).scalar_subquery()


def _wishes_of(*which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    sending = sa.select(sa.func.count()).where(WebhookLog.webhook_id == Webhook.id, _SENDING)
    free = sa.or_(WebhookState.held_until.is_(None), WebhookState.held_until <= _NOW)
    is_open = sa.and_(Webhook.enabled, free)
    first = sa.case((is_open, _first_due()), else_=_first_due(_TEST))
    every = (
        sa.select(
            Webhook.id.label("webhook_id"), Webhook.concurrency, Webhook.rate_per_s,
            sending.scalar_subquery().label("sending"), WebhookState.failures, WebhookState.paced_to,
            sa.type_coerce(first, WebhookLog.due_at.type).label("due_at"), sa.not_(is_open).label("only_tests"),
        )
        .join(WebhookState, WebhookState.webhook_id == Webhook.id)
        .where(Webhook.deleted_at.is_(None), *which)
        .subquery()
    )  # fmt: skip
    return sa.select(every).where(every.c.due_at.is_not(None))


_WISHES = _wishes_of()
_WISHES_AMONG = _wishes_of(Webhook.id.in_(sa.bindparam("among", expanding=True)))
_LOCK = (
    sa.select(WebhookState.webhook_id)
    .where(WebhookState.webhook_id.in_(sa.bindparam("among", expanding=True)))
    .order_by(WebhookState.webhook_id)
    .with_for_update(skip_locked=True)
)
"""Those whose limits nobody else looks at just now."""
_CLAIM = (
    sa.update(WebhookLog)
    .where(WebhookLog.id.in_(sa.bindparam("ids", expanding=True)), _WAITING)
    .values(
        status="sending",
        claimed_by=sa.bindparam("courier", type_=WebhookLog.claimed_by.type),
        claimed_at=_NOW,
        claimed_until=sa.bindparam("until", type_=WebhookLog.due_at.type),
        attempted_at=_NOW,
        ended_at=None,
        tries=WebhookLog.tries + 1,
        attempts=WebhookLog.attempts + 1,
        epoch=WebhookLog.epoch + 1,
        rev=WebhookLog.rev + 1,
    )
    .returning(*(getattr(WebhookLog, name) for name in _TAKEN))
    .execution_options(synchronize_session=False)
)


def _is_lost(now: Any) -> sa.ColumnElement[bool]:
    """Its courier's process is known to have ended, or has given no sign of life for a lease."""
    ended = sa.exists().where(Worker.id == WebhookLog.claimed_by, Worker.ended_at.is_not(None))
    return sa.or_(WebhookLog.claimed_until < now, ended)


_LOST = sa.select(sa.literal(1)).select_from(WebhookLog).where(_SENDING, _is_lost(_NOW)).limit(1)


_OLDEST = (
    "SELECT id FROM (SELECT id FROM webhook_logs "
    "WHERE webhook_id = :webhook{n} AND {due}{which} AND due_at <= :now "
    "ORDER BY due_at LIMIT :count{n}) AS oldest{n}"
)


@lru_cache(512)
def _oldest(only_tests: tuple[bool, ...]) -> sa.TextualSelect:
    """The ids of what is due longest, so many of each webhook. From a webhook that is off or held back only tests go out."""
    each = [
        _OLDEST.format(n=n, due=DUE, which=f" AND {IS_TEST}" if tests else "")
        for n, tests in enumerate(only_tests)
    ]
    typed = [sa.bindparam(f"webhook{n}", type_=sa.Uuid()) for n in range(len(only_tests))]
    counts = [sa.bindparam(f"count{n}", type_=sa.Integer()) for n in range(len(only_tests))]
    return sa.text(" UNION ALL ".join(each)).bindparams(_NOW, *typed, *counts).columns(id=sa.Uuid())


def _delivery(row: Any, webhook: Webhook) -> Delivery:
    return Delivery(
        id=row.id,
        epoch=row.epoch,
        rev=row.rev,
        due_at=row.due_at,
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
