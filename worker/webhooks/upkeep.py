"""What retention removes of webhooks, and which secrets it forgets."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.webhooks.models import ENDED, Webhook, WebhookLog


def past_delivery(before: datetime) -> sa.ColumnElement[bool]:
    """Deliveries that ended before this, and older ones that nothing will ever send: their webhook is off or gone."""
    sending = sa.exists().where(
        Webhook.id == WebhookLog.webhook_id, Webhook.enabled, Webhook.deleted_at.is_(None)
    )
    ended = sa.and_(WebhookLog.status.in_(ENDED), WebhookLog.ended_at < before)
    stranded = sa.and_(WebhookLog.status.not_in((*ENDED, "sending")), ~sending)
    return sa.and_(WebhookLog.created_at < before, sa.or_(ended, stranded))


async def forget_old_secrets(session: AsyncSession, now: datetime) -> None:
    """A secret whose overlap is over signs nothing any more, so it is not kept."""
    await session.execute(
        sa.update(Webhook)
        .where(Webhook.previous_secret_until < now)
        .values(previous_secret=None, previous_secret_until=None)
        .execution_options(synchronize_session=False)
    )
