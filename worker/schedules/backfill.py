"""Running instants of the past after all: looked at first, then done as one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import new_id, utc_now
from worker.db.session import changed, emit
from worker.errors import Invalid
from worker.joblogs.enqueue import Request, accept
from worker.schedules.actions import fired_data, locked
from worker.schedules.cron import Rule
from worker.schedules.models import ScheduledJob, ScheduleFire

LIMIT = 1000
"""Instants of one batch."""


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill of a range would do, oldest first."""

    to_run: tuple[datetime, ...]
    ran: tuple[datetime, ...]
    """Already enqueued once: left out."""
    more: bool
    """Whether the range holds more instants than one batch may."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What became of it; `refused` maps instants to why."""

    job_ids: tuple[UUID, ...]
    refused: Mapping[datetime, str]
    left_out: int


async def plan(
    connection: AsyncConnection | AsyncSession,
    schedule_id: UUID,
    rule: Rule,
    since: datetime,
    until: datetime,
    now: datetime,
) -> BackfillPlan:
    """The preview. Both ends are part of the range.

    Raises:
        Invalid: the range is empty, has no time zone, or reaches into the future.
    """
    _check_range(since, until, now)
    found = rule.between(since - timedelta(microseconds=1), until, LIMIT + 1)
    done = set(
        (
            await connection.execute(
                sa.select(ScheduleFire.fire_at).where(
                    ScheduleFire.scheduled_job_id == schedule_id,
                    ScheduleFire.fire_at.between(since, until),
                    ScheduleFire.outcome == "enqueued",
                )
            )
        ).scalars()
    )
    instants = found[:LIMIT]
    return BackfillPlan(
        tuple(at for at in instants if at not in done),
        tuple(at for at in instants if at in done),
        len(found) > LIMIT,
    )


async def backfill(
    session: AsyncSession, schedule_id: UUID, since: datetime, until: datetime, *, actor: Actor
) -> Backfilled:
    """Runs every instant of the range that did not run, at once, whatever the overlap policy.

    Raises:
        NotFound; Invalid: as `plan`, or the range holds more than a batch may.
    """
    schedule = await locked(session, schedule_id)
    made = await plan(session, schedule.id, schedule.rule, since, until, utc_now())
    if made.more:
        raise Invalid({"until": f"the range holds more than {LIMIT} instants: choose a shorter one"})
    requests = [_request(schedule, at, actor) for at in made.to_run]
    answers = await accept(session, requests)
    jobs: list[UUID] = []
    refused: dict[datetime, str] = {}
    for at, request, answer in zip(made.to_run, requests, answers, strict=True):
        if isinstance(answer, Exception):
            refused[at] = str(answer)
            continue
        assert request.job_id is not None
        jobs.append(request.job_id)
        await _record(session, schedule, at, request.job_id, actor)
    await _tell(session, schedule, since, until, jobs, actor)
    return Backfilled(tuple(jobs), refused, len(made.ran))


def _check_range(since: datetime, until: datetime, now: datetime) -> None:
    problems = {
        name: f"{at.isoformat()} has no time zone: write 2026-11-22T09:00:00Z"
        for name, at in (("since", since), ("until", until))
        if at.tzinfo is None
    }
    if not problems and until > now:
        problems["until"] = "lies ahead: only what was due already can be run after all"
    if not problems and since > until:
        problems["since"] = "must not be later than the end"
    if problems:
        raise Invalid(problems)


def _request(schedule: ScheduledJob, at: datetime, actor: Actor) -> Request:
    return Request(
        schedule.function,
        schedule.args,
        queue=schedule.queue,
        priority=schedule.priority,
        run_at=at,
        user=actor.name[:200],
        caused_by=f"schedule:{schedule.id}",
        scheduled_job_id=schedule.id,
        job_id=new_id(),
    )


async def _record(
    session: AsyncSession, schedule: ScheduledJob, at: datetime, job_id: UUID, actor: Actor
) -> None:
    """An instant that was missed or left out keeps its row, which now tells of the run."""
    values = {"outcome": "enqueued", "kind": "backfill", "job_id": job_id, "user_id": actor.name[:200]}
    same = (ScheduleFire.scheduled_job_id == schedule.id, ScheduleFire.fire_at == at)
    fire = await session.scalar(sa.select(ScheduleFire).where(*same))
    if fire is None:
        fire = ScheduleFire(id=new_id(), scheduled_job_id=schedule.id, fire_at=at, created_at=utc_now())
        session.add(fire)
    for name, value in values.items():
        setattr(fire, name, value)
    fire.detail = None
    emit(session, "schedule.fired", fired_data(schedule, at, job_id, "backfill"), actor.name)


async def _tell(
    session: AsyncSession,
    schedule: ScheduledJob,
    since: datetime,
    until: datetime,
    jobs: list[UUID],
    actor: Actor,
) -> None:
    schedule.rev += 1
    await session.flush()
    changed(session, "schedule", schedule.id, schedule.rev)
    await audit(
        session, actor, "schedule.backfill", "schedule", schedule.id,
        after={"since": since.isoformat(), "until": until.isoformat(), "jobs": len(jobs)},
    )  # fmt: skip
