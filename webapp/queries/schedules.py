"""The SELECTs of the pages and routes of schedules: the list by name, one with its history, what is coming."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.views import duration_s
from worker.db.base import utc_now
from worker.joblogs.models import JobLog
from worker.jobs.secret import mask
from worker.schedules.models import ScheduledJob, ScheduleFire, rule_of
from worker.schedules.preview import Coming
from worker.schedules.words import sentence
from worker.schedules.zones import wall

SPARK_FIRES = 60
AT_ONCE = 50
PAGE = 100
COMING_LIMIT = 5000
LATE_AFTER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class FireView:
    """One due instant: how its job ended or stands, or why there was none."""

    fire_id: UUID
    fire_at: datetime
    outcome: str
    kind: str
    job_id: UUID | None
    status: str | None
    """The job's; None when there was no job."""
    detail: str | None
    user: str | None
    started_at: datetime | None
    duration_seconds: float | None
    job_is_there: bool

    @property
    def ran(self) -> bool:
        return self.outcome == "enqueued"


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as people see it. `fires` are its last 60 instants, oldest first."""

    id: UUID
    name: str
    function: str
    args: dict[str, Any]
    queue: str | None
    priority: int | None
    cron_expression: str
    time_zone: str
    sentence: str
    anchor: datetime
    start_at: datetime | None
    end_at: datetime | None
    jitter_s: float
    missed: str
    catch_up_s: int
    overlap: str
    enabled: bool
    paused_at: datetime | None
    paused_until: datetime | None
    paused_by: str | None
    pause_reason: str | None
    next_fire_at: datetime | None
    last_fire_at: datetime | None
    last_job_id: UUID | None
    last_status: str | None
    module: str | None
    edited_at: datetime | None
    retired_at: datetime | None
    created_at: datetime
    created_by: str | None
    updated_at: datetime
    version: int
    rev: int
    fires: tuple[FireView, ...] = ()

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > utc_now())

    @property
    def runs(self) -> list[FireView | None]:
        """For the sparkline: an instant without a job is a gap."""
        return [fire if fire.ran else None for fire in self.fires]

    @property
    def owned_by_code(self) -> bool:
        return self.module is not None

    @property
    def gaps(self) -> int:
        return sum(not fire.ran for fire in self.fires)

    @property
    def next_local(self) -> str:
        """What the schedule's own clocks show when it is due next."""
        if self.next_fire_at is None:
            return ""
        return f"{wall(self.time_zone, self.next_fire_at):%a %d %b %H:%M}"

    @property
    def shown_rev(self) -> str:
        """Differs when what is shown differs: also when only its last job went on."""
        return digest((self.rev, self.is_paused, self.last_status, history_rev(self.fires)))


def history_rev(fires: Sequence[FireView]) -> str:
    return digest([(fire.fire_id, fire.outcome, fire.status, fire.duration_seconds) for fire in fires])


def digest(value: Any) -> str:
    return "h" + hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


async def list_schedules(
    connection: AsyncConnection,
    *,
    q: str = "",
    function: str | None = None,
    after: str | None = None,
    limit: int = PAGE,
    fires: int = SPARK_FIRES,
) -> tuple[list[ScheduleView], str | None]:
    """A page of schedules by name, and the name to go on after."""
    statement = sa.select(ScheduledJob.__table__).where(ScheduledJob.deleted_at.is_(None))
    if function is not None:
        statement = statement.where(ScheduledJob.function == function)
    for word in q.lower().split():
        held = (
            ScheduledJob.name,
            ScheduledJob.function,
            ScheduledJob.time_zone,
            ScheduledJob.cron_expression,
        )
        statement = statement.where(
            sa.or_(*(sa.func.lower(column).contains(word, autoescape=True) for column in held))
        )
    if after is not None:
        statement = statement.where(ScheduledJob.name > after)
    rows = (await connection.execute(statement.order_by(ScheduledJob.name).limit(limit + 1))).all()
    views = await _views(connection, rows[:limit], fires)
    return views, rows[limit - 1].name if len(rows) > limit else None


async def load_schedules(
    connection: AsyncConnection, ids: Collection[UUID], fires: int = SPARK_FIRES
) -> dict[UUID, ScheduleView]:
    """Schedules by id; those that are not there, or deleted, are absent."""
    statement = sa.select(ScheduledJob.__table__).where(
        ScheduledJob.id.in_(list(ids)), ScheduledJob.deleted_at.is_(None)
    )
    rows = (await connection.execute(statement)).all()
    return {view.id: view for view in await _views(connection, rows, fires)}


async def one_schedule(connection: AsyncConnection, schedule_id: UUID) -> ScheduleView | None:
    return (await load_schedules(connection, [schedule_id])).get(schedule_id)


async def schedules_exist(connection: AsyncConnection) -> bool:
    statement = sa.select(sa.literal(1)).select_from(ScheduledJob).where(ScheduledJob.deleted_at.is_(None))
    return (await connection.execute(statement.limit(1))).first() is not None


async def history(
    connection: AsyncConnection, schedule_id: UUID, before: datetime | None = None, limit: int = 50
) -> tuple[list[FireView], datetime | None]:
    """A page of what became of its instants, newest first, and the instant to go on before."""
    wanted = sa.select(ScheduleFire.id).where(ScheduleFire.scheduled_job_id == schedule_id)
    if before is not None:
        wanted = wanted.where(ScheduleFire.fire_at < before)
    wanted = wanted.order_by(ScheduleFire.fire_at.desc()).limit(limit + 1)
    rows = (await connection.execute(_fires().where(ScheduleFire.id.in_(wanted.subquery().select())))).all()
    found = sorted((_fire(row) for row in rows), key=lambda fire: fire.fire_at, reverse=True)
    return found[:limit], found[limit - 1].fire_at if len(found) > limit else None


async def late_schedules(connection: AsyncConnection, now: datetime) -> tuple[int, datetime | None]:
    """How many schedules (counted up to a hundred) wait for a clock that does not come, and since when."""
    waiting = (
        sa.select(ScheduledJob.next_fire_at)
        .where(ScheduledJob.next_fire_at < now - LATE_AFTER)
        .order_by(ScheduledJob.next_fire_at)
        .limit(100)
    )
    found = list(await connection.scalars(waiting))
    return len(found), found[0] if found else None


async def coming(connection: AsyncConnection) -> list[Coming]:
    """What is due some time, soonest first."""
    statement = (
        sa.select(ScheduledJob.__table__)
        .where(ScheduledJob.next_fire_at.is_not(None))
        .order_by(ScheduledJob.next_fire_at)
        .limit(COMING_LIMIT)
    )
    return [
        Coming(row.id, row.name, rule_of(row), row.next_fire_at)
        for row in await connection.execute(statement)
    ]


async def name_of(connection: AsyncConnection, schedule_id: UUID) -> tuple[UUID, str] | None:
    """Id and name of a schedule that is there."""
    statement = sa.select(ScheduledJob.id, ScheduledJob.name).where(
        ScheduledJob.id == schedule_id, ScheduledJob.deleted_at.is_(None)
    )
    row = (await connection.execute(statement)).first()
    return None if row is None else (row.id, row.name)


async def of_function(connection: AsyncConnection, function: str) -> list[tuple[UUID, str, str]]:
    """Id, name and sentence of the schedules that start a job."""
    statement = (
        sa.select(ScheduledJob.__table__)
        .where(ScheduledJob.function == function, ScheduledJob.deleted_at.is_(None))
        .order_by(ScheduledJob.name)
        .limit(20)
    )
    return [(row.id, row.name, sentence(rule_of(row))) for row in await connection.execute(statement)]


async def _views(connection: AsyncConnection, rows: Sequence[sa.Row[Any]], fires: int) -> list[ScheduleView]:
    newest = await _newest_fires(connection, [row.id for row in rows], fires)
    ends = await _ends(connection, [row.last_job_id for row in rows if row.last_job_id])
    return [_view(row, newest.get(row.id, ()), ends) for row in rows]


async def _newest_fires(
    connection: AsyncConnection, ids: Sequence[UUID], limit: int
) -> dict[UUID, tuple[FireView, ...]]:
    """The newest instants of each schedule, oldest first: one seek per schedule."""
    found: dict[UUID, list[FireView]] = {}
    for start in range(0, len(ids) if limit else 0, AT_ONCE):
        newest = [
            sa.select(
                sa.select(ScheduleFire.id)
                .where(ScheduleFire.scheduled_job_id == one)
                .order_by(ScheduleFire.fire_at.desc())
                .limit(limit)
                .subquery()
            )
            for one in ids[start : start + AT_ONCE]
        ]
        statement = _fires().where(ScheduleFire.id.in_(sa.union_all(*newest)))
        for row in await connection.execute(statement):
            found.setdefault(row.scheduled_job_id, []).append(_fire(row))
    return {of: tuple(sorted(fires, key=lambda fire: fire.fire_at)) for of, fires in found.items()}


async def _ends(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, str]:
    """The status of these jobs, also of those that are purged."""
    ends: dict[UUID, str] = {}
    for column, status in ((ScheduleFire.job_id, ScheduleFire.job_status), (JobLog.id, JobLog.status)):
        rows = await connection.execute(sa.select(column, status).where(column.in_(ids), status.is_not(None)))
        ends |= {row[0]: row[1] for row in rows}
    return ends


def _fires() -> sa.Select[Any]:
    return sa.select(
        ScheduleFire.__table__,
        JobLog.status.label("now_status"),
        JobLog.started_at.label("job_started_at"),
        JobLog.completed_at.label("job_completed_at"),
    ).select_from(sa.outerjoin(ScheduleFire, JobLog, ScheduleFire.job_id == JobLog.id))


def _fire(row: sa.Row[Any]) -> FireView:
    return FireView(
        fire_id=row.id,
        fire_at=row.fire_at,
        outcome=row.outcome,
        kind=row.kind,
        job_id=row.job_id,
        status=row.now_status or row.job_status,
        detail=row.detail,
        user=row.user_id,
        started_at=row.job_started_at,
        duration_seconds=duration_s(row.job_started_at, row.job_completed_at),
        job_is_there=row.now_status is not None,
    )


SAME = tuple(
    name
    for name in ScheduleView.__dataclass_fields__
    if name not in ("args", "sentence", "last_status", "fires")
)


def _view(row: sa.Row[Any], fires: Sequence[FireView], ends: dict[UUID, str]) -> ScheduleView:
    return ScheduleView(
        **{name: getattr(row, name) for name in SAME},
        args=mask(row.args),
        sentence=sentence(rule_of(row)),
        last_status=ends.get(row.last_job_id) if row.last_job_id else None,
        fires=tuple(fires),
    )
