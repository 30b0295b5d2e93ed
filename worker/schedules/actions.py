"""What people and programs do with schedules: the buttons on screen are these functions, same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import new_id
from worker.db.session import changed, emit, now_of
from worker.errors import ChangedMeanwhile, Invalid, NotFound, OwnedByCode
from worker.joblogs import actions as jobs
from worker.joblogs.models import JobLog
from worker.jobs import secret
from worker.schedules.models import NAME_LENGTH, ScheduledJob, ScheduleFire
from worker.schedules.wishes import FIELDS, RULE_FIELDS, checked, rule_of

REASON_LENGTH = 500


async def create(session: AsyncSession, wish: Mapping[str, Any], *, actor: Actor) -> ScheduledJob:
    """Stores a schedule. `wish` holds name, function, cron_expression and what differs from the defaults.

    Raises:
        Invalid: naming each wrong field with what is allowed; a taken name too.
    """
    values = await checked(session, wish)
    now = await now_of(session)
    schedule = ScheduledJob(
        **values,
        id=new_id(),
        anchor=values["start_at"] or now,
        created_at=now,
        created_by=actor.name[:200],
        updated_at=now,
        next_fire_at=rule_of(values, now).next(now) if values["enabled"] else None,
        version=1,
        rev=1,
        code_hashes=[],
    )
    await _insert(session, schedule)
    await _told(session, schedule, "schedule.created", actor, {}, visible(schedule))
    return schedule


async def edit(
    session: AsyncSession,
    schedule_id: UUID,
    changes: Mapping[str, Any],
    *,
    actor: Actor,
    version: int | None = None,
) -> ScheduledJob:
    """Changes the fields that `changes` names; workers follow within a second. Secrets that come masked stay.

    `version` is the one the caller saw.

    Raises:
        NotFound; Invalid: naming each wrong field; ChangedMeanwhile: it has another version by now.
    """
    schedule = await locked(session, schedule_id)
    if version is not None and version != schedule.version:
        raise ChangedMeanwhile(noun="schedule", key=schedule.name, seen=version, current=schedule.version)
    values = await checked(session, changes, schedule)
    values = {name: value for name, value in values.items() if getattr(schedule, name) != value}
    if not values:
        return schedule
    before = _shown(schedule, values)
    now = await now_of(session)
    for name, value in values.items():
        setattr(schedule, name, value)
    if {"cron_expression", "start_at"} & values.keys():
        schedule.anchor = schedule.start_at or now
    if schedule.code_key is not None and values.keys() - {"enabled"}:
        schedule.edited_at = now
    await _changed(session, schedule, now, moves=bool({*RULE_FIELDS, "enabled"} & values.keys()))
    await _told(session, schedule, "schedule.changed", actor, before, _shown(schedule, values))
    return schedule


async def enable(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """Switches it on: it is due next at the first instant from now."""
    return await edit(session, schedule_id, {"enabled": True}, actor=actor)


async def disable(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """Switches it off until it is switched on again."""
    return await edit(session, schedule_id, {"enabled": False}, actor=actor)


async def pause(
    session: AsyncSession, schedule_id: UUID, *, reason: str = "", until: datetime | None = None, actor: Actor
) -> ScheduledJob:
    """Stops it for a while: until `until`, or until it is resumed. What would have been due meanwhile does not run.

    Raises:
        NotFound; Invalid: the reason is too long, or `until` is past.
    """
    schedule = await locked(session, schedule_id)
    now = await now_of(session)
    check_pause(reason, until, now)
    before = _shown(schedule, PAUSE)
    schedule.paused_at, schedule.paused_until = schedule.paused_at or now, until
    schedule.paused_by, schedule.pause_reason = actor.name[:200], reason or None
    await _changed(session, schedule, now, moves=True)
    await _told(session, schedule, "schedule.paused", actor, before, _shown(schedule, PAUSE))
    return schedule


async def resume(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """Ends a pause: it is due next at the first instant from now."""
    schedule = await locked(session, schedule_id)
    if schedule.paused_at is None:
        return schedule
    before = _shown(schedule, PAUSE)
    schedule.paused_at = schedule.paused_until = schedule.paused_by = schedule.pause_reason = None
    await _changed(session, schedule, await now_of(session), moves=True)
    await _told(session, schedule, "schedule.resumed", actor, before, _shown(schedule, PAUSE))
    return schedule


async def pause_many(
    session: AsyncSession,
    schedule_ids: Iterable[UUID],
    *,
    reason: str = "",
    until: datetime | None = None,
    actor: Actor,
) -> list[ScheduledJob]:
    """`pause` for each of these that is there; answers those."""
    return [
        await pause(session, schedule_id, reason=reason, until=until, actor=actor)
        for schedule_id in await _existing(session, schedule_ids)
    ]


async def resume_many(
    session: AsyncSession, schedule_ids: Iterable[UUID], *, actor: Actor
) -> list[ScheduledJob]:
    """`resume` for each of these that is there; answers those."""
    return [await resume(session, found, actor=actor) for found in await _existing(session, schedule_ids)]


async def run_now(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> JobLog:
    """Runs its job at once, whatever it is due, also while it is off or paused; the next instant stays.

    Raises:
        NotFound, and what enqueueing raises.
    """
    schedule = await locked(session, schedule_id)
    now = await now_of(session)
    job = await jobs.enqueue(
        session,
        schedule.function,
        schedule.args,
        queue=schedule.queue,
        priority=schedule.priority,
        caused_by=f"schedule:{schedule.id}",
        scheduled_job_id=schedule.id,
        actor=actor,
    )
    session.add(
        ScheduleFire(
            id=new_id(), scheduled_job_id=schedule.id, fire_at=now, outcome="enqueued", kind="manual", job_id=job.id,
            created_at=now, user_id=actor.name[:200],
        )
    )  # fmt: skip
    schedule.last_fire_at, schedule.last_job_id, schedule.rev = now, job.id, schedule.rev + 1
    await session.flush()
    emit(session, "schedule.fired", fired_data(schedule, now, job.id, "manual"), actor.name)
    changed(session, "schedule", schedule.id, schedule.rev)
    await audit(session, actor, "schedule.run", "schedule", schedule.id, after={"job_id": str(job.id)})
    return job


async def duplicate(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """A copy that people own, switched off, under a name of its own."""
    source = await one(session, schedule_id)
    wish = {name: getattr(source, name) for name in FIELDS}
    wish |= {"name": await free_name(session, source.name, " copy"), "enabled": False}
    return await create(session, wish, actor=actor)


async def delete(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """Takes it out of all lists; it can be restored until maintenance purges it. Its history stays.

    Raises:
        NotFound; OwnedByCode: workers' code still has it.
    """
    schedule = await locked(session, schedule_id)
    if schedule.code_key is not None and schedule.retired_at is None:
        raise OwnedByCode(name=schedule.name, module=schedule.module)
    now = await now_of(session)
    schedule.deleted_at = now
    await _changed(session, schedule, now, moves=True)
    await _told(session, schedule, "schedule.deleted", actor, {"name": schedule.name}, {})
    return schedule


async def restore(session: AsyncSession, schedule_id: UUID, *, actor: Actor) -> ScheduledJob:
    """Brings a deleted schedule back as it was; if its name was taken meanwhile, under another.

    Raises:
        NotFound: it was never there, is purged, or is not deleted.
    """
    schedule = await session.get(ScheduledJob, schedule_id, with_for_update=True, populate_existing=True)
    if schedule is None or schedule.deleted_at is None:
        raise NotFound(noun="deleted schedule", key=str(schedule_id))
    schedule.name = await free_name(session, schedule.name, " restored")
    schedule.deleted_at = None
    await _changed(session, schedule, await now_of(session), moves=True)
    await _told(session, schedule, "schedule.created", actor, {}, {"name": schedule.name})
    return schedule


async def one(session: AsyncSession, schedule_id: UUID) -> ScheduledJob:
    """The schedule, or NotFound."""
    schedule = await session.get(ScheduledJob, schedule_id, populate_existing=True)
    if schedule is None or schedule.deleted_at is not None:
        raise NotFound(noun="schedule", key=str(schedule_id))
    return schedule


async def locked(session: AsyncSession, schedule_id: UUID) -> ScheduledJob:
    """The schedule with its row locked until the transaction ends, or NotFound."""
    schedule = await session.get(ScheduledJob, schedule_id, with_for_update=True, populate_existing=True)
    if schedule is None or schedule.deleted_at is not None:
        raise NotFound(noun="schedule", key=str(schedule_id))
    return schedule


async def free_name(session: AsyncSession, name: str, suffix: str) -> str:
    """`name` if nobody has it, else with the suffix and a number that nobody has."""
    wanted = [name] + [f"{name[: NAME_LENGTH - 20]}{suffix}{f' {n}' if n > 1 else ''}" for n in range(1, 100)]
    taken = set(
        await session.scalars(
            sa.select(ScheduledJob.name).where(
                ScheduledJob.name.in_(wanted), ScheduledJob.deleted_at.is_(None)
            )
        )
    )
    return next((one for one in wanted if one not in taken), f"{name[:160]} {new_id()}")


def check_pause(reason: str, until: datetime | None, now: datetime) -> None:
    """Raises Invalid for a pause that cannot be."""
    problems: dict[str, str] = {}
    if len(reason) > REASON_LENGTH or "\0" in reason:
        problems["reason"] = f"{len(reason)} characters are too many: at most {REASON_LENGTH} are allowed"
    if until is not None and until.tzinfo is None:
        problems["until"] = f"{until.isoformat()} has no time zone: write 2026-11-22T09:00:00Z"
    elif until is not None and until <= now:
        problems["until"] = f"{until.isoformat()} is past: it must be later than now"
    if problems:
        raise Invalid(problems)


def due_next(schedule: ScheduledJob, now: datetime) -> datetime | None:
    """The first instant from now at which it may fire; None while it is off, paused without an end, or gone."""
    if not schedule.enabled or schedule.deleted_at is not None or schedule.retired_at is not None:
        return None
    if schedule.paused_at is not None:
        if schedule.paused_until is None:
            return None
        now = max(now, schedule.paused_until)
    return schedule.rule.next(now)


def fired_data(
    schedule: ScheduledJob | sa.Row[Any], fire_at: datetime, job_id: UUID | None, kind: str
) -> dict[str, Any]:
    """What the events of a schedule tell: never its arguments."""
    return changed_data(schedule) | {
        "fire_at": fire_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "job_id": str(job_id) if job_id else None,
        "kind": kind,
    }


def changed_data(schedule: ScheduledJob | sa.Row[Any]) -> dict[str, Any]:
    return {"schedule_id": str(schedule.id), "name": schedule.name, "function": schedule.function}


def visible(schedule: ScheduledJob) -> dict[str, Any]:
    """Its fields as JSON for the audit log, secrets masked."""
    return _shown(schedule, FIELDS)


PAUSE = ("paused_at", "paused_until", "pause_reason")


def _shown(schedule: ScheduledJob, names: Iterable[str]) -> dict[str, Any]:
    found = {name: getattr(schedule, name) for name in names}
    return {
        name: value.isoformat() if isinstance(value, datetime) else secret.mask(value)
        for name, value in found.items()
    }


async def _insert(session: AsyncSession, schedule: ScheduledJob) -> None:
    try:
        async with session.begin_nested():
            session.add(schedule)
    except IntegrityError:
        raise Invalid({"name": f"{schedule.name!r} is taken by another schedule"}) from None


async def _changed(session: AsyncSession, schedule: ScheduledJob, now: datetime, *, moves: bool) -> None:
    """Writes the row with its next version; what it is due next is decided anew if that may have changed."""
    if moves:
        schedule.next_fire_at = due_next(schedule, now)
    schedule.updated_at, schedule.version, schedule.rev = now, schedule.version + 1, schedule.rev + 1
    name = schedule.name
    try:
        await session.flush()
    except IntegrityError:
        raise Invalid({"name": f"{name!r} is taken by another schedule"}) from None


async def _told(
    session: AsyncSession,
    schedule: ScheduledJob,
    event: str,
    actor: Actor,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    emit(
        session,
        event,
        changed_data(schedule),
        actor.name,
    )
    changed(session, "schedule", schedule.id, schedule.rev)
    await audit(session, actor, event, "schedule", schedule.id, before=before, after=after)


async def _existing(session: AsyncSession, schedule_ids: Iterable[UUID]) -> list[UUID]:
    """Those of the ids that are schedules, in the order in which rows are locked."""
    statement = (
        sa.select(ScheduledJob.id)
        .where(ScheduledJob.id.in_(list(schedule_ids)), ScheduledJob.deleted_at.is_(None))
        .order_by(ScheduledJob.id)
    )
    return list(await session.scalars(statement))
