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
_OUTCOME: Final = (
    "status", "ended_at", "due_at", "next_trigger", "response_code", "response_body", "error", "error_class", "duration_ms",
)  # fmt: skip
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
        held = await _held(session, finished)
        mine = [
            (each, _next(each, now)) for each in finished if held.get(each.delivery.id) == each.delivery.epoch
        ]
        await _write(session, mine, now)
        ends = await _stand(session, mine)
    for webhook_id, reason in ends.items():  # a transaction of its own: edits lock a webhook before its state
        async with database.transaction() as session:
            await switch_off(session, webhook_id, reason)
    counted = {each.delivery.id for each, _ in mine}
    return [each.delivery.id in counted for each in finished]


_HELD = (
    sa.select(WebhookLog.id, WebhookLog.epoch)
    .where(WebhookLog.id.in_(sa.bindparam("ids", expanding=True)), WebhookLog.status == "sending")
    .order_by(WebhookLog.id)
    .with_for_update()
)
_ENDED = (
    sa.update(WebhookLog.__table__)  # type: ignore[arg-type]
    .where(WebhookLog.__table__.c.id == sa.bindparam("log_id"))
    .values(
        {name: sa.bindparam(name) for name in (*_OUTCOME, "body", "body_hash")}
        | {"claimed_by": None, "claimed_until": None, "rev": WebhookLog.__table__.c.rev + 1}
    )
)


async def _held(session: AsyncSession, finished: Sequence[Finished]) -> dict[UUID, int]:
    """The epochs under which these deliveries are being sent now, their rows locked."""
    rows = await session.execute(_HELD, {"ids": [each.delivery.id for each in finished]})
    return {row.id: row.epoch for row in rows}


def _next(each: Finished, now: datetime) -> Next:
    delivery = each.delivery
    return follow(
        each.sent.outcome,
        tries=delivery.tries,
        max_retries=0 if delivery.trigger == "test" else delivery.max_retries,
        plan=delivery.retry,
        now=now,
        random=each.random,
    )


async def _write(session: AsyncSession, mine: Sequence[tuple[Finished, Next]], now: datetime) -> None:
    """The deliveries and their attempts, two statements for any number of them."""
    if not mine:
        return
    connection = await session.connection()
    await connection.execute(_ENDED, [_values(each, then, now) for each, then in mine])
    await connection.execute(
        sa.insert(WebhookAttempt.__table__),  # type: ignore[arg-type]
        [_attempt(each, then) for each, then in mine],
    )
    for each, _ in mine:
        changed(session, "webhook_log", each.delivery.id, each.delivery.rev + 1)


def _values(each: Finished, then: Next, now: datetime) -> dict[str, Any]:
    delivery, sent = each.delivery, each.sent
    body = delivery.body if delivery.body is not None else sent.body
    return {
        "log_id": delivery.id,
        "status": then.status,
        "ended_at": now if then.due_at is None else None,
        "due_at": then.due_at or delivery.due_at,
        "next_trigger": "auto" if then.due_at is not None else delivery.trigger,
        "response_code": sent.outcome.status_code,
        "response_body": sent.response_body,
        "error": _error(sent),
        "error_class": _error_class(sent),
        "duration_ms": sent.total_ms,
        "body": body,
        "body_hash": sha256(body).hexdigest() if body is not None else None,
    }


def _attempt(each: Finished, then: Next) -> dict[str, Any]:
    delivery, sent = each.delivery, each.sent
    return {
        "id": new_id(),
        "webhook_log_id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "number": delivery.number,
        "trigger": delivery.trigger,
        "user_id": delivery.asked_by if delivery.trigger != "auto" else None,
        "outcome": "success" if sent.outcome.succeeded else "failed",
        "started_at": sent.started_at,
        "ended_at": sent.ended_at,
        "method": delivery.method,
        "url": delivery.url,
        "request_headers": dict(sent.request_headers),
        "status_code": sent.outcome.status_code,
        "error_class": _error_class(sent),
        "error": _error(sent),
        "next_attempt_at": then.due_at,
        **{name: getattr(sent, name) for name in MEASURED},
    }


async def _stand(session: AsyncSession, mine: Sequence[tuple[Finished, Next]]) -> dict[UUID, str]:
    """Notes how the webhooks fare; answers those that are to be switched off, and why."""
    ends: dict[UUID, str] = {}
    by_webhook: dict[UUID, list[tuple[Finished, Next]]] = {}
    for each, then in mine:
        by_webhook.setdefault(each.delivery.webhook_id, []).append((each, then))
    await _recovered(
        session, [i for i, of in by_webhook.items() if any(each.sent.outcome.succeeded for each, _ in of)]
    )
    for webhook_id, of in sorted(by_webhook.items()):
        good = [n for n, (each, _) in enumerate(of) if each.sent.outcome.succeeded]
        bad = [each for each, _ in of[good[-1] + 1 if good else 0 :] if each.sent.outcome.charged]
        if bad:
            await _failed(session, webhook_id, bad, [then for _, then in of], ends)
        if any(then.gone for _, then in of):
            ends[webhook_id] = f"the receiver answered {GONE} Gone: it does not want these events any more"
    return ends


_RECOVERED = (
    sa.update(WebhookState.__table__)  # type: ignore[arg-type]
    .where(
        WebhookState.__table__.c.webhook_id.in_(sa.bindparam("ids", expanding=True)),
        WebhookState.__table__.c.failures > 0,
    )
    .values(failing_since=None, failures=0)
)


async def _recovered(session: AsyncSession, webhook_ids: list[UUID]) -> None:
    if webhook_ids:
        await (await session.connection()).execute(_RECOVERED, {"ids": webhook_ids})


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
