"""What becomes of attempts: each is recorded with its delivery, if the courier that made it still holds that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import new_id
from worker.db.session import Database, changed
from worker.webhooks.models import WebhookAttempt, WebhookLog, WebhookState
from worker.webhooks.ports import Delivery, Sent
from worker.webhooks.retries import GIVE_UP_AFTER, GONE, Next, follow, gives_up
from worker.webhooks.standing import charge, switch_off

ERROR_LENGTH: Final = 2000
MEASURED: Final = (
    "peer_ip", "response_headers", "response_body", "response_truncated", "dns_ms", "connect_ms", "tls_ms",
    "first_byte_ms", "total_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt that has ended; `random` from [0, 1) spreads its next one."""

    delivery: Delivery
    sent: Sent
    random: float


async def finish(database: Database, finished: Sequence[Finished]) -> list[bool]:
    """Records attempts in one transaction; answers for each whether it counted, or came too late and was dropped."""
    async with database.transaction() as session:
        now = await database.now(session)
        written = {
            each.delivery.id: await _write(session, each, now)
            for each in sorted(finished, key=lambda each: each.delivery.id)
        }
        ends = await _stand(session, [each for each in finished if written[each.delivery.id]], written)
    for webhook_id, reason in ends.items():  # a transaction of its own: edits lock a webhook before its state
        async with database.transaction() as session:
            await switch_off(session, webhook_id, reason)
    return [written[each.delivery.id] is not None for each in finished]


async def _write(session: AsyncSession, each: Finished, now: datetime) -> Next | None:
    delivery, sent = each.delivery, each.sent
    then = follow(
        sent.outcome,
        tries=delivery.tries,
        max_retries=0 if delivery.trigger == "test" else delivery.max_retries,
        plan=delivery.retry,
        now=now,
        random=each.random,
    )
    ended = then.due_at is None
    values: dict[str, Any] = {
        "status": then.status,
        "ended_at": now if ended else None,
        "response_code": sent.outcome.status_code,
        "response_body": sent.response_body,
        "error": _error(sent),
        "error_class": _error_class(sent),
        "duration_ms": sent.total_ms,
        "claimed_by": None,
        "claimed_until": None,
        "rev": WebhookLog.rev + 1,
    }
    if sent.body is not None and delivery.body is None:
        values |= {"body": sent.body, "body_hash": sha256(sent.body).hexdigest()}
    if then.due_at is not None:
        values |= {"due_at": then.due_at, "next_trigger": "auto"}
    mine = sa.and_(
        WebhookLog.id == delivery.id, WebhookLog.epoch == delivery.epoch, WebhookLog.status == "sending"
    )
    statement = sa.update(WebhookLog).where(mine).values(**values).returning(WebhookLog.rev)
    rev = (await session.execute(statement.execution_options(synchronize_session=False))).scalar()
    if rev is None:
        return None
    session.add(_attempt(each, then))
    changed(session, "webhook_log", delivery.id, rev)
    return then


def _attempt(each: Finished, then: Next) -> WebhookAttempt:
    delivery, sent = each.delivery, each.sent
    return WebhookAttempt(
        id=new_id(),
        webhook_log_id=delivery.id,
        webhook_id=delivery.webhook_id,
        number=delivery.number,
        trigger=delivery.trigger,
        user_id=delivery.asked_by if delivery.trigger != "auto" else None,
        outcome="success" if sent.outcome.succeeded else "failed",
        started_at=sent.started_at,
        ended_at=sent.ended_at,
        method=delivery.method,
        url=delivery.url,
        request_headers=dict(sent.request_headers),
        status_code=sent.outcome.status_code,
        error_class=_error_class(sent),
        error=_error(sent),
        next_attempt_at=then.due_at,
        **{name: getattr(sent, name) for name in MEASURED},
    )


async def _stand(
    session: AsyncSession, finished: Sequence[Finished], written: dict[UUID, Next | None]
) -> dict[UUID, str]:
    """Notes how the webhooks fare; answers those that are to be switched off, and why."""
    ends: dict[UUID, str] = {}
    for webhook_id in sorted({each.delivery.webhook_id for each in finished}):
        of = [each for each in finished if each.delivery.webhook_id == webhook_id]
        good = [n for n, each in enumerate(of) if each.sent.outcome.succeeded]
        if good:
            await _recovered(session, webhook_id)
        bad = [each for each in of[good[-1] + 1 if good else 0 :] if each.sent.outcome.charged]
        nexts = [then for each in of if (then := written[each.delivery.id]) is not None]
        if bad:
            await _failed(session, webhook_id, bad, nexts, ends)
        if any(then.gone for then in nexts):
            ends[webhook_id] = f"the receiver answered {GONE} Gone: it does not want these events any more"
    return ends


async def _recovered(session: AsyncSession, webhook_id: UUID) -> None:
    await session.execute(
        sa.update(WebhookState)
        .where(WebhookState.webhook_id == webhook_id, WebhookState.failures > 0)
        .values(failing_since=None, failures=0)
        .execution_options(synchronize_session=False)
    )


async def _failed(
    session: AsyncSession,
    webhook_id: UUID,
    bad: Sequence[Finished],
    nexts: Sequence[Next],
    ends: dict[UUID, str],
) -> None:
    now = max(each.sent.ended_at for each in bad)
    state = await charge(session, webhook_id, len(bad), min(each.sent.ended_at for each in bad))
    if state is None:
        return
    held = max((then.held_until for then in nexts if then.held_until is not None), default=None)
    if held is not None and (state.held_until is None or held > state.held_until):
        state.held_until = held
    if gives_up(state.failing_since, state.failures, now):
        said = bad[-1].sent
        ends[webhook_id] = (
            f"nothing but failures for {GIVE_UP_AFTER.days} days ({state.failures}), the last: {_error(said)}"
        )


def _error(sent: Sent) -> str | None:
    """Why it failed, in words; None for a success."""
    if sent.outcome.succeeded:
        return None
    if sent.error is not None:
        return sent.error[:ERROR_LENGTH]
    return f"the receiver answered {sent.outcome.status_code}, which is not 2xx"


def _error_class(sent: Sent) -> str | None:
    if sent.outcome.succeeded or sent.outcome.error_class is not None:
        return sent.outcome.error_class
    code = sent.outcome.status_code or 0
    return "redirect" if 300 <= code < 400 else "status"
