"""Queues that fall behind: noticed by a clerk, told once when it begins and once when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.db.session import Database, emit
from worker.joblogs.counters import by_queue
from worker.joblogs.models import JobLog
from worker.jobs.models import Queue
from worker.settings import Settings

OVER_BELOW: Final = 0.8
"""A backlog is over below this part of both thresholds, so that one at the edge is not told again and again."""


async def watch(database: Database, settings: Settings) -> int:
    """Compares every queue that is not paused with M_ALERT_BACKLOG_AGE_S and _DEPTH; answers how many were told of."""
    async with database.read() as connection:
        now = await database.now(connection)
        depths = {
            queue: n for (queue, status), n in (await by_queue(connection)).items() if status == "queued"
        }
        waiting = sorted(queue for queue, n in depths.items() if n > 0)
        oldest = await oldest_waiting(connection, waiting)
        rows = (await connection.execute(sa.select(Queue.name, Queue.paused_at, Queue.backlog_since))).all()
    paused = {row.name for row in rows if row.paused_at is not None}
    behind = {row.name for row in rows if row.backlog_since is not None}
    told = 0
    for queue in sorted({*waiting, *behind} - paused):
        facts = measured(depths.get(queue, 0), oldest.get(queue), now)
        if is_behind(facts, settings, since=queue in behind) != (queue in behind):
            told += await _tell(database, queue, facts, settings, begins=queue not in behind)
    return told


def measured(depth: int, oldest_at: datetime | None, now: datetime) -> dict[str, float]:
    """How many wait, and for how many seconds the oldest has waited."""
    age_s = max(0.0, (now - oldest_at).total_seconds()) if oldest_at and depth > 0 else 0.0
    return {"depth": max(0, depth), "oldest_age_s": round(age_s, 3)}


def is_behind(facts: Mapping[str, float], settings: Settings, *, since: bool) -> bool:
    """Whether a queue is behind by its age or its depth; `since` tells that it has been so."""
    part = OVER_BELOW if since else 1.0
    return (
        facts["oldest_age_s"] >= settings.alert_backlog_age_s * part
        or facts["depth"] >= settings.alert_backlog_depth * part
    )


async def oldest_waiting(
    connection: AsyncConnection | AsyncSession, queues: list[str]
) -> dict[str, datetime]:
    """When each queue's longest waiting job became due: ten seeks a queue, however many wait."""
    if not queues:
        return {}
    queue = sa.union_all(*(sa.select(sa.literal(name).label("name")) for name in queues)).subquery()
    priority = sa.union_all(*(sa.select(sa.literal(n).label("n")) for n in range(10))).subquery()
    first = (
        sa.select(JobLog.run_at)
        .where(
            JobLog.status == sa.literal_column("'queued'"),
            JobLog.queue == queue.c.name,
            JobLog.priority == priority.c.n,
        )
        .order_by(JobLog.run_at)
        .limit(1)
        .correlate(queue, priority)
        .scalar_subquery()
    )
    each = sa.select(queue.c.name, first.label("run_at")).join_from(queue, priority, sa.true()).subquery()
    found: dict[str, datetime] = {}
    for name, run_at in await connection.execute(sa.select(each).where(each.c.run_at.is_not(None))):
        found[name] = min(run_at, found.get(name, run_at))
    return found


async def _tell(
    database: Database, queue: str, facts: Mapping[str, float], settings: Settings, *, begins: bool
) -> bool:
    """Once, whichever clerk is first."""
    async with database.transaction() as session:
        now = await database.now(session)
        await _enter(session, queue, now)
        was = Queue.backlog_since.is_(None) if begins else Queue.backlog_since.is_not(None)
        statement = (
            sa.update(Queue)
            .where(Queue.name == queue, was)
            .values(backlog_since=now if begins else None)
            .returning(Queue.name)
            .execution_options(synchronize_session=False)
        )
        if (await session.execute(statement)).first() is None:
            return False
        data: dict[str, Any] = {
            "queue": queue,
            **facts,
            "age_limit_s": settings.alert_backlog_age_s,
            "depth_limit": settings.alert_backlog_depth,
        }
        if begins:
            emit(session, "queue.backlog", data)
        else:
            emit(session, "queue.caught_up", data)
        return True


async def _enter(session: AsyncSession, queue: str, now: datetime) -> None:
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(Queue).values(name=queue, created_at=now, rev=1)
    await session.execute(row.on_conflict_do_nothing(index_elements=["name"]))
