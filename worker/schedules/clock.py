"""Time at work: every instant that is due is decided once, whoever and however many look. Nobody leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import ENGINE
from worker.db.base import Time, new_id, utc_now
from worker.db.session import Database, changed, emit
from worker.joblogs.actions import cancel_locked
from worker.joblogs.enqueue import Request, accept
from worker.joblogs.models import SCHEDULED_LIVE, JobLog
from worker.schedules.actions import changed_data, fired_data
from worker.schedules.models import ScheduledJob, ScheduleFire, rule_of
from worker.schedules.policy import Due, jitter_s, plan

log = structlog.get_logger(__name__)

BATCH = 200
"""Schedules that one look takes."""
MOST_JOBS = 1000
"""A look that would start more than this leaves the rest to the next one, which follows at once."""
ROWS_AT_ONCE = 500

COLUMNS = [
    column
    for column in ScheduledJob.__table__.columns
    if column.name not in ("created_by", "created_at", "updated_at", "code_hashes")
]


@dataclass(slots=True)
class Decided:
    """What this look makes of one schedule."""

    schedule: Any
    due: Sequence[Due]
    next_fire_at: datetime | None
    rows: list[dict[str, Any]] = field(default_factory=list)


async def fire_due(database: Database, now: datetime | None = None) -> int:
    """Decides what is due in one transaction; answers how many schedules it took, `BATCH` if more is due at once."""
    if not await database.any(ScheduledJob, ScheduledJob.next_fire_at <= _soon(database, now)):
        return 0
    async with database.transaction() as session:
        now = now or await database.now(session)
        decided = _decide(await _take(session, now), now)
        if not decided:
            return 0
        await _fire(session, decided, now)
        await _move_on(session, decided, now)
        behind = any(one.next_fire_at is not None and one.next_fire_at <= now for one in decided)
        return BATCH if behind else len(decided)


def _soon(database: Database, now: datetime | None) -> sa.ColumnElement[datetime]:
    """The database's own now; a literal on SQLite, where this machine's clock is the only one."""
    if now is None and database.dialect == "postgresql":
        return sa.func.clock_timestamp()
    return sa.literal(now or utc_now(), Time)


async def _take(session: AsyncSession, now: datetime) -> Sequence[sa.Row[Any]]:
    """The longest due, locked; what another clerk has locked is its business."""
    statement = (
        sa.select(*COLUMNS)
        .where(ScheduledJob.next_fire_at <= now)
        .order_by(ScheduledJob.next_fire_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return (await session.execute(statement)).all()


def _decide(rows: Sequence[sa.Row[Any]], now: datetime) -> list[Decided]:
    decided: list[Decided] = []
    jobs = 0
    for row in rows:
        if jobs >= MOST_JOBS:
            break
        one = _decide_one(row, now)
        jobs += sum(due.fires for due in one.due)
        decided.append(one)
    return decided


def _decide_one(row: Any, now: datetime) -> Decided:
    if (
        not row.enabled
        or row.deleted_at is not None
        or (row.paused_at is not None and row.paused_until is None)
    ):
        return Decided(row, (), None)
    try:
        made = plan(rule_of(row), row.next_fire_at, now, row.missed, timedelta(seconds=row.catch_up_s))
    except Exception:  # one schedule that cannot be read must not hold up all others
        log.exception("A schedule cannot be read and stands still until it is edited", schedule=str(row.id))
        return Decided(row, (), None)
    return Decided(row, made.due, made.next_fire_at)


async def _fire(session: AsyncSession, decided: Sequence[Decided], now: datetime) -> None:
    """Records every instant, starts the jobs of those that fire, and tells of both."""
    live = await _live(session, [one.schedule.id for one in decided if one.schedule.overlap != "allow"])
    for one in decided:
        one.rows = _rows(one, one.schedule.id in live, now)
    new = await _insert(session, [row for one in decided for row in one.rows])
    for one in decided:
        one.rows = [row for row in one.rows if row["id"] in new]
        if one.schedule.overlap == "cancel_running" and one.schedule.id in live and _fires(one):
            await _cancel_running(session, one.schedule.id)
    await _enqueue(session, decided)
    for one in decided:
        _tell(session, one)


def _fires(one: Decided) -> bool:
    return any(row["outcome"] == "enqueued" for row in one.rows)


async def _live(session: AsyncSession, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these schedules have a job that has not ended."""
    if not ids:
        return set()
    statement = (
        sa.select(JobLog.scheduled_job_id)
        .where(sa.text(SCHEDULED_LIVE), JobLog.scheduled_job_id.in_(ids))
        .distinct()
    )
    return {found for found in await session.scalars(statement) if found is not None}


def _rows(one: Decided, is_live: bool, now: datetime) -> list[dict[str, Any]]:
    """The fires in order, with what becomes of each."""
    overlap, busy = one.schedule.overlap, is_live
    last = max((due.at for due in one.due if due.fires), default=None)
    rows = []
    for due in one.due:
        outcome, detail = "missed", _through(due)
        if due.fires and overlap == "skip" and busy:
            outcome, detail = "skipped_overlap", "the run before had not ended"
        elif due.fires and overlap == "cancel_running" and due.at != last:
            outcome, detail = "skipped_overlap", "the next instant was due already"
        elif due.fires:
            outcome, busy = "enqueued", True
        rows.append(
            {
                "id": new_id(), "scheduled_job_id": one.schedule.id, "fire_at": due.at, "outcome": outcome,
                "kind": "clock", "job_id": new_id() if outcome == "enqueued" else None, "detail": detail,
                "created_at": now, "job_status": None, "user_id": None,
            }
        )  # fmt: skip
    return rows


def _through(due: Due) -> str | None:
    return f"and all that were due up to {due.through:%Y-%m-%d %H:%M:%S} UTC" if due.through else None


async def _insert(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> set[UUID]:
    """The ids of the rows that are new: an instant that somebody decided already stays as it is."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    new: set[UUID] = set()
    for start in range(0, len(rows), ROWS_AT_ONCE):
        statement: Any = insert(ScheduleFire).values(list(rows[start : start + ROWS_AT_ONCE]))
        statement = statement.on_conflict_do_nothing().returning(ScheduleFire.id)
        new |= set(await session.scalars(statement))
    return new


async def _cancel_running(session: AsyncSession, schedule_id: UUID) -> None:
    statement = (
        sa.select(JobLog)
        .where(sa.text(SCHEDULED_LIVE), JobLog.scheduled_job_id == schedule_id)
        .order_by(JobLog.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for job in (await session.scalars(statement)).all():
        await cancel_locked(session, job, ENGINE)


async def _enqueue(session: AsyncSession, decided: Sequence[Decided]) -> None:
    """Inserts the jobs; one that cannot be accepted is a fire that was refused, and says why."""
    firing = [(one.schedule, row) for one in decided for row in one.rows if row["outcome"] == "enqueued"]
    answers = await accept(session, [_request(schedule, row) for schedule, row in firing])
    for (_, row), answer in zip(firing, answers, strict=True):
        if isinstance(answer, Exception):
            row.update(outcome="refused", job_id=None, detail=str(answer)[:500])
            await session.execute(
                sa.update(ScheduleFire)
                .where(ScheduleFire.id == row["id"])
                .values(outcome="refused", job_id=None, detail=row["detail"])
                .execution_options(synchronize_session=False)
            )


def _request(schedule: Any, row: dict[str, Any]) -> Request:
    later = timedelta(seconds=jitter_s(schedule.id, row["fire_at"], schedule.jitter_s))
    return Request(
        schedule.function,
        schedule.args,
        queue=schedule.queue,
        priority=schedule.priority,
        run_at=row["fire_at"] + later,
        caused_by=f"schedule:{schedule.id}",
        scheduled_job_id=schedule.id,
        job_id=row["job_id"],
    )


def _tell(session: AsyncSession, one: Decided) -> None:
    for row in one.rows:
        data = fired_data(one.schedule, row["fire_at"], row["job_id"], "clock")
        if row["outcome"] == "enqueued":
            emit(session, "schedule.fired", data)
        elif row["outcome"] != "skipped_overlap":
            emit(session, "schedule.missed", data | {"outcome": row["outcome"], "detail": row["detail"]})


async def _move_on(session: AsyncSession, decided: Sequence[Decided], now: datetime) -> None:
    """Compares and sets `next_fire_at`: if it is not what was read, these fires were decided by somebody else."""
    statement = (
        sa.update(ScheduledJob.__table__)  # type: ignore[arg-type]
        .where(
            ScheduledJob.__table__.c.id == sa.bindparam("b_id"),
            ScheduledJob.__table__.c.next_fire_at == sa.bindparam("b_was", type_=Time),
        )
        .values(
            next_fire_at=sa.bindparam("b_next", type_=Time),
            last_fire_at=sa.bindparam("b_last", type_=Time),
            last_job_id=sa.bindparam("b_job"),
            paused_at=sa.bindparam("b_paused", type_=Time),
            paused_until=sa.bindparam("b_until", type_=Time),
            paused_by=sa.bindparam("b_by"),
            pause_reason=sa.bindparam("b_reason"),
            rev=ScheduledJob.__table__.c.rev + 1,
        )
    )
    values = []
    for one in decided:
        fired = [row for row in one.rows if row["outcome"] == "enqueued"]
        over = one.schedule.paused_until is not None and one.schedule.paused_until <= now
        if over:
            emit(session, "schedule.resumed", changed_data(one.schedule))
        values.append(
            {
                "b_id": one.schedule.id,
                "b_was": one.schedule.next_fire_at,
                "b_next": one.next_fire_at,
                "b_last": fired[-1]["fire_at"] if fired else one.schedule.last_fire_at,
                "b_job": fired[-1]["job_id"] if fired else one.schedule.last_job_id,
                "b_paused": None if over else one.schedule.paused_at,
                "b_until": None if over else one.schedule.paused_until,
                "b_by": None if over else one.schedule.paused_by,
                "b_reason": None if over else one.schedule.pause_reason,
            }
        )
        changed(session, "schedule", one.schedule.id, one.schedule.rev + 1)
    await (await session.connection()).execute(statement, values)
