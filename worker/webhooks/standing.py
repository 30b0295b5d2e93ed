"""How a webhook stands with its receiver: failures in a row, how long it is held back, and its end."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import ENGINE, Actor
from worker.accounts.audit import audit
from worker.db.session import changed, emit, now_of
from worker.webhooks.models import Webhook, WebhookState

REASON_LENGTH: Final = 500


async def switch_off(session: AsyncSession, webhook_id: UUID, reason: str, *, actor: Actor = ENGINE) -> None:
    """Switches a webhook off and says why, once; what waits for it waits until somebody switches it on again."""
    webhook = await session.get(Webhook, webhook_id, with_for_update=True, populate_existing=True)
    if webhook is None or webhook.deleted_at is not None or not webhook.enabled:
        return
    await disable_locked(session, webhook, reason, actor)
    await audit(
        session, actor, "webhook.disabled", "webhook", webhook.id,
        before={"enabled": True}, after={"enabled": False, "disabled_reason": webhook.disabled_reason},
    )  # fmt: skip


async def disable_locked(session: AsyncSession, webhook: Webhook, reason: str, actor: Actor) -> None:
    """Writes it to the row, which the caller has locked and found enabled, and tells `webhook.disabled`."""
    now = await now_of(session)
    webhook.enabled = False
    webhook.disabled_at, webhook.disabled_by = now, actor.name[:200]
    webhook.disabled_reason = reason[:REASON_LENGTH] or None
    webhook.updated_at, webhook.version, webhook.rev = now, webhook.version + 1, webhook.rev + 1
    await session.flush()
    emit(
        session,
        "webhook.disabled",
        told(webhook) | {"reason": webhook.disabled_reason, "by": webhook.disabled_by},
        actor.name,
    )
    changed(session, "webhook", webhook.id, webhook.rev)


def told(webhook: Webhook) -> dict[str, Any]:
    """What the events of a webhook tell: never its URL, which may hold a key."""
    return {"webhook_id": str(webhook.id), "name": webhook.name, "event": webhook.event}


async def start_anew(session: AsyncSession, webhook_id: UUID) -> None:
    """Forgets its failures and what its receiver asked for: it was switched on, or leads elsewhere now."""
    await session.execute(
        sa.update(WebhookState)
        .where(WebhookState.webhook_id == webhook_id)
        .values(failing_since=None, failures=0, held_until=None)
    )


async def charge(session: AsyncSession, webhook_id: UUID, failures: int, at: datetime) -> WebhookState | None:
    """Counts failed attempts; answers its state, or None when the webhook is gone."""
    state = await session.get(WebhookState, webhook_id, with_for_update=True, populate_existing=True)
    if state is not None:
        state.failing_since = state.failing_since or at
        state.failures += failures
        await session.flush()
    return state
