"""Retention: what is old enough is purged, in small transactions; audit entries are exempt."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.models import OneTimeToken, Session, Throttle
from worker.db.session import Database
from worker.events.models import OutboxRow
from worker.joblogs.counters import Key, count
from worker.joblogs.models import TERMINAL, IdempotencyKey, JobLog, Operation
from worker.process.models import Upkeep, Worker
from worker.schedules.history import FIRES_FOR, keep_ends
from worker.schedules.models import ScheduledJob, ScheduleFire
from worker.settings import Settings
from worker.webhooks.models import Webhook, WebhookLog, WebhookMiss, WebhookReplay
from worker.webhooks.upkeep import forget_old_secrets, past_delivery

BATCH = 1000
UNDO_FOR = timedelta(hours=1)
OUTBOX_FOR = timedelta(days=7)
IDEMPOTENCY_FOR = timedelta(days=1)
TRACES_FOR = timedelta(days=7)
"""How long ended workers, ended sessions and finished bulk operations stay to be looked at."""


GONE = (
    JobLog.id, JobLog.job_name, JobLog.queue, JobLog.status, JobLog.deleted_at, JobLog.scheduled_job_id,
)  # fmt: skip


async def purge(database: Database, settings: Settings) -> dict[str, int]:
    """Removes up to a thousand rows of each kind that are past their time; answers how many of each."""
    purged = {"job_logs": await _purge_jobs(database, timedelta(days=settings.retention_days))}
    async with database.transaction() as session:
        now = await database.now(session)
        await forget_old_secrets(session, now)
        for table, past in _past(now, timedelta(days=settings.retention_days)):
            victims = sa.select(table.__table__.primary_key.columns[0]).where(past).limit(BATCH)
            key = table.__table__.primary_key.columns[0]
            result: Any = await session.execute(sa.delete(table).where(key.in_(victims), past))
            purged[table.__tablename__] = int(result.rowcount)
        await _note(session, purged, now)
    return purged


async def _note(session: AsyncSession, purged: dict[str, int], now: datetime) -> None:
    """What the settings page says of it. The rows are taken in one order by every clerk."""
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    for what, removed in sorted(purged.items()):
        first = insert(Upkeep).values(what=what, last_run_at=now, removed=removed)
        again = {"last_run_at": now, "removed": Upkeep.removed + removed}
        await session.execute(first.on_conflict_do_update(index_elements=["what"], set_=again))


def _past(now: datetime, kept_for: timedelta) -> list[tuple[Any, sa.ColumnElement[bool]]]:
    return [
        (OutboxRow, sa.and_(OutboxRow.created_at < now - OUTBOX_FOR, OutboxRow.matched_at.is_not(None))),
        (IdempotencyKey, IdempotencyKey.created_at < now - IDEMPOTENCY_FOR),
        (OneTimeToken, OneTimeToken.expires_at < now),
        (Session, sa.or_(Session.expires_at < now - TRACES_FOR, Session.ended_at < now - TRACES_FOR)),
        (Throttle, Throttle.window_started_at < now - IDEMPOTENCY_FOR),
        (Worker, Worker.ended_at < now - TRACES_FOR),
        (Operation, Operation.ended_at < now - TRACES_FOR),
        (ScheduledJob, ScheduledJob.deleted_at < now - UNDO_FOR),
        (ScheduleFire, ScheduleFire.fire_at < now - FIRES_FOR),
        (WebhookLog, past_delivery(now - kept_for)),
        (WebhookMiss, WebhookMiss.at < now - OUTBOX_FOR),
        (WebhookReplay, WebhookReplay.ended_at < now - TRACES_FOR),
        (Webhook, Webhook.deleted_at < now - UNDO_FOR),
    ]


async def _purge_jobs(database: Database, kept_for: timedelta) -> int:
    async with database.transaction() as session:
        now = await database.now(session)
        old = sa.and_(JobLog.status.in_(TERMINAL), JobLog.completed_at < now - kept_for)
        undone = JobLog.deleted_at < now - UNDO_FOR
        ids = (
            await session.scalars(
                sa.select(JobLog.id).where(sa.or_(old, undone)).limit(BATCH).with_for_update(skip_locked=True)
            )
        ).all()
        if not ids:
            return 0
        gone = (
            await session.execute(
                sa.delete(JobLog)
                .where(JobLog.id.in_(ids))
                .returning(*GONE)
                .execution_options(synchronize_session=False)
            )
        ).all()
        _uncount(session, gone)
        ends = {
            row.id: (row.scheduled_job_id, row.status) for row in gone if row.scheduled_job_id is not None
        }
        await keep_ends(session, ends, now - kept_for)
        return len(ids)


def _uncount(session: AsyncSession, gone: Any) -> None:
    """A deleted job left the counts when it was deleted; the others leave them now."""
    counts: Counter[Key] = Counter()
    for row in gone:
        if row.deleted_at is None:
            counts[(row.job_name, row.queue, row.status)] -= 1
    count(session, counts)
