"""Sending again: one delivery, or all that a filter means as a planned batch with a rate, stopped at any time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import new_id
from worker.db.session import Database, changed, now_of
from worker.errors import DeliveryBusy, Invalid, NotFound, ReplayEnded, WebhookOff
from worker.webhooks.filters import checked, conditions
from worker.webhooks.models import Webhook, WebhookLog, WebhookReplay
from worker.webhooks.taker import DUE

SLOWEST, FASTEST = 0.1, 100.0
"""Deliveries a second of a batch."""
STEP_S: Final = 0.5
COUNT_CAP: Final = 10_001
REFUSALS_KEPT: Final = 100


async def replay(session: AsyncSession, log_id: UUID, *, actor: Actor) -> WebhookLog:
    """Sends a delivery again: a new attempt of the same delivery, with the same id, rendered anew and signed now.

    Raises:
        Denied: to viewers; NotFound: the delivery or its webhook is gone; DeliveryBusy: it waits for its first attempt, or
            one is under way; WebhookOff.
    """
    actor.require("operator")
    log = await _locked(session, log_id)
    await _again(session, log, "manual", actor.name)
    await audit(session, actor, "webhook.replay", "webhook_log", log.id, after={"webhook": log.webhook_name})
    return log


@dataclass(frozen=True, slots=True)
class Preview:
    """What a batch would send again; counts stop at `COUNT_CAP`."""

    matching: int
    later: int
    """Matching deliveries that came after the cutoff, and are left out."""
    takes_s: float
    """How long it takes at its rate, at least."""
    cutoff: datetime


async def preview(
    connection: AsyncConnection | AsyncSession,
    wanted: Mapping[str, Any],
    *,
    rate_per_s: float = 10.0,
    cutoff: datetime,
) -> Preview:
    """Counts what a batch would send, without sending anything. Raises Invalid."""
    where = conditions(_filter(wanted, rate_per_s))
    matching = await _capped(connection, [*where, WebhookLog.created_at <= cutoff])
    later = await _capped(connection, [*where, WebhookLog.created_at > cutoff])
    return Preview(matching, later, matching / rate_per_s, cutoff)


async def start(
    session: AsyncSession,
    wanted: Mapping[str, Any],
    *,
    rate_per_s: float = 10.0,
    cutoff: datetime | None = None,
    actor: Actor,
) -> WebhookReplay:
    """Plans a batch for the clerk; deliveries that came after `cutoff` (default: now) are left out. One audit entry.

    Raises:
        Denied: to viewers; Invalid: naming each wrong field.
    """
    actor.require("operator")
    found = _filter(wanted, rate_per_s)
    now = await now_of(session)
    batch = WebhookReplay(
        id=new_id(), filter=found, cutoff=min(cutoff or now, now), rate_per_s=rate_per_s, status="pending", total=0,
        done=0, refused=0, refusals=[], next_at=now, user_id=actor.name[:200], created_at=now, stop_requested=False,
        rev=1,
    )  # fmt: skip
    session.add(batch)
    await session.flush()
    changed(session, "webhook_replay", batch.id, 1)
    after = {"filter": found, "rate_per_s": rate_per_s}
    await audit(session, actor, "webhook.replay_many", "webhook_replay", batch.id, after=after)
    return batch


async def stop(session: AsyncSession, replay_id: UUID, *, actor: Actor) -> WebhookReplay:
    """Ends a batch before its next step; what is sent stays sent.

    Raises:
        Denied: to viewers; NotFound; ReplayEnded.
    """
    actor.require("operator")
    batch = await session.get(WebhookReplay, replay_id, with_for_update=True, populate_existing=True)
    if batch is None:
        raise NotFound(noun="replay", key=str(replay_id))
    if batch.ended_at is not None:
        raise ReplayEnded(key=str(replay_id), status=batch.status)
    batch.stop_requested, batch.next_at, batch.rev = True, await now_of(session), batch.rev + 1
    await session.flush()
    changed(session, "webhook_replay", batch.id, batch.rev)
    await audit(session, actor, "webhook.replay_stop", "webhook_replay", batch.id)
    return batch


async def run_pending(database: Database) -> bool:
    """One step of the oldest batch that is due and that nobody else works at; answers whether there was one."""
    if not await database.any(WebhookReplay, WebhookReplay.ended_at.is_(None)):
        return False
    async with database.transaction() as session:
        now = await database.now(session)
        batch = await session.scalar(
            sa.select(WebhookReplay)
            .where(WebhookReplay.ended_at.is_(None), WebhookReplay.next_at <= now)
            .order_by(WebhookReplay.next_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if batch is None:
            return False
        await _step(session, batch, now)
        batch.rev += 1
        await session.flush()
        changed(session, "webhook_replay", batch.id, batch.rev)
        return True


async def _step(session: AsyncSession, batch: WebhookReplay, now: datetime) -> None:
    if batch.stop_requested:
        batch.status, batch.ended_at = "stopped", now
        return
    where = [*conditions(batch.filter), WebhookLog.created_at <= batch.cutoff]
    if batch.status == "pending":
        batch.status, batch.total = "running", await _capped(session, where)
    if batch.cursor is not None:
        where.append(WebhookLog.id > batch.cursor)
    share = max(1, math.floor(batch.rate_per_s * STEP_S))
    statement = sa.select(WebhookLog.id).where(*where).order_by(WebhookLog.id).limit(share)
    ids = (await session.scalars(statement)).all()
    if not ids:
        batch.status, batch.ended_at = "done", now
        batch.total = batch.done + batch.refused
        return
    for log_id in ids:
        await _apply(session, batch, log_id)
    batch.cursor, batch.next_at = ids[-1], now + timedelta(seconds=len(ids) / batch.rate_per_s)


async def _apply(session: AsyncSession, batch: WebhookReplay, log_id: UUID) -> None:
    """One row: what cannot be sent is counted with its reason, and does not stop the others."""
    try:
        async with session.begin_nested():
            await _again(session, await _locked(session, log_id), "replay", batch.user_id)
    except (NotFound, DeliveryBusy, WebhookOff) as refusal:
        batch.refused += 1
        if len(batch.refusals) < REFUSALS_KEPT:
            batch.refusals = [*batch.refusals, {"log_id": str(log_id), "why": refusal.message}]
    else:
        batch.done += 1


async def _locked(session: AsyncSession, log_id: UUID) -> WebhookLog:
    log = await session.get(WebhookLog, log_id, with_for_update=True, populate_existing=True)
    if log is None:
        raise NotFound(noun="delivery", key=str(log_id))
    return log


async def _again(session: AsyncSession, log: WebhookLog, trigger: str, user: str | None) -> None:
    """The row, which the caller has locked, is due at once and its plan of retries begins anew."""
    if log.status in ("pending", "sending"):
        raise DeliveryBusy(key=str(log.id), status=log.status)
    webhook = await session.get(Webhook, log.webhook_id)
    if webhook is None or webhook.deleted_at is not None:
        raise NotFound(noun="webhook", key=log.webhook_name)
    if not webhook.enabled and log.trigger != "test":
        raise WebhookOff(name=webhook.name)
    log.status, log.due_at, log.ended_at = "pending", await now_of(session), None
    log.tries, log.body, log.body_hash = 0, None, None
    log.next_trigger, log.asked_by = trigger, user
    log.rev += 1
    await session.flush()
    changed(session, "webhook_log", log.id, log.rev)
    changed(session, DUE, log.webhook_id, 1)


def _filter(wanted: Mapping[str, Any], rate_per_s: float) -> dict[str, Any]:
    if not SLOWEST <= rate_per_s <= FASTEST:
        allowed = f"it must be a number from {SLOWEST:g} to {FASTEST:g}"
        raise Invalid({"rate_per_s": f"{rate_per_s!r} is not allowed: {allowed}"})
    found = checked(wanted)
    if not found:
        raise Invalid({"filter": "it is empty: say which deliveries, at least by their webhook or status"})
    return found


async def _capped(connection: AsyncConnection | AsyncSession, where: list[sa.ColumnElement[bool]]) -> int:
    some = sa.select(sa.literal(1)).select_from(WebhookLog).where(*where).limit(COUNT_CAP).subquery()
    return int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())
