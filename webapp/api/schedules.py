"""/api/v1/schedules: what starts which job when, what became of it, and what would."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import Request, delete, get, patch, post
from msgspec import UNSET, Struct
from sqlalchemy.ext.asyncio import AsyncSession

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schedule_schema import (
    BackfillAnswer,
    BackfillRequest,
    BulkDone,
    Fire,
    FirePage,
    FireQuery,
    NewSchedule,
    PreviewInstant,
    PreviewQuery,
    Schedule,
    ScheduleBulk,
    ScheduleEdit,
    SchedulePage,
    SchedulePause,
    SchedulePreview,
    ScheduleQuery,
    Started,
)
from webapp.api.schema import exact, instant
from webapp.auth import actor, operator, viewer
from webapp.queries.schedules import ScheduleView, history, list_schedules, one_schedule
from worker.db.base import utc_now
from worker.errors import Invalid, NotFound
from worker.schedules import actions, backfill
from worker.schedules.cron import Rule, checked_expression, checked_zone
from worker.schedules.models import rule_of
from worker.schedules.preview import difference, preview

AnyRequest = Request[Any, Any, Any]


@get(
    "/schedules",
    guards=[viewer],
    operation_class=documented(
        query=ScheduleQuery, answer={"items": [examples.SCHEDULE], "next_cursor": None}
    ),
    summary="List schedules",
)
async def list_all(request: AnyRequest) -> SchedulePage:
    """Every schedule by its name."""
    wish = strict.query(request, ScheduleQuery)
    async with database(request).read() as connection:
        views, after = await list_schedules(
            connection, q=wish.q or "", function=wish.function, after=wish.cursor, limit=wish.limit, fires=0
        )
    return SchedulePage([Schedule.of(view) for view in views], after)


@post(
    "/schedules",
    guards=[operator],
    operation_class=documented(body=NewSchedule, example=examples.NEW_SCHEDULE, answer=examples.SCHEDULE),
    summary="Make a schedule",
)
async def create(request: AnyRequest) -> Schedule:
    """It is due at its next instant from now."""
    wish = await strict.body(request, NewSchedule)
    async with database(request).transaction() as session:
        made = await actions.create(session, _given(wish), actor=actor(request))
    return await _one(request, made.id)


@get(
    "/schedules/preview",
    guards=[viewer],
    operation_class=documented(query=PreviewQuery, answer=examples.PREVIEW),
    summary="Try out an expression",
)
async def try_out(request: AnyRequest) -> SchedulePreview:
    """The expression in a sentence, and its next instants with what daylight saving does to them.

    With the id of a schedule: also how many runs this expression would add and remove within a week.
    """
    wish = strict.query(request, PreviewQuery)
    now = wish.after or utc_now()
    rule = _rule(wish, now)
    made = preview(rule, now, wish.count)
    answer = SchedulePreview(
        made.sentence, [PreviewInstant(exact(one.at), one.local, one.note) for one in made.next]
    )
    if wish.schedule_id is not None:
        stored = await _stored(request, wish.schedule_id)
        anchor = stored.anchor if stored.cron_expression == rule.expression else stored.start_at or now
        changed = replace(rule, anchor=anchor, start=stored.start_at, end=stored.end_at)
        change = difference(rule_of(stored) if stored.next_fire_at else None, changed, now)
        answer.adds, answer.removes = change.adds, change.removes
    return answer


def _rule(wish: PreviewQuery, now: datetime) -> Rule:
    problems: dict[str, str] = {}
    expression = zone = ""
    try:
        expression = checked_expression(wish.cron_expression)
    except Invalid as error:
        problems |= error.problems
    try:
        zone = checked_zone(wish.time_zone)
    except Invalid as error:
        problems |= error.problems
    if problems:
        raise Invalid(problems)
    return Rule(expression, zone, anchor=now)


@post(
    "/schedules/bulk",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=ScheduleBulk,
        example={
            "action": "pause",
            "schedule_ids": [examples.SCHEDULE["schedule_id"]],
            "reason": "moving house",
        },
        answer={"schedule_ids": [examples.SCHEDULE["schedule_id"]]},
    ),
    summary="Pause or resume many schedules",
)
async def bulk(request: AnyRequest) -> BulkDone:
    """Those that are not there are left out."""
    wish = await strict.body(request, ScheduleBulk)
    async with database(request).transaction() as session:
        if wish.action == "pause":
            done = await actions.pause_many(
                session, wish.schedule_ids, reason=wish.reason, until=wish.until, actor=actor(request)
            )
        else:
            done = await actions.resume_many(session, wish.schedule_ids, actor=actor(request))
    return BulkDone([str(schedule.id) for schedule in done])


@get(
    "/schedules/{schedule_id:uuid}",
    guards=[viewer],
    operation_class=documented(answer=examples.SCHEDULE, problems=(404,)),
    summary="Read a schedule",
)
async def read(request: AnyRequest, schedule_id: UUID) -> Schedule:
    """One schedule."""
    return await _one(request, schedule_id)


@patch(
    "/schedules/{schedule_id:uuid}",
    guards=[operator],
    operation_class=documented(
        body=ScheduleEdit,
        example={"cron_expression": "0 10 * * *", "version": 1},
        answer=examples.SCHEDULE,
        problems=(404, 409),
    ),
    summary="Change a schedule",
)
async def change(request: AnyRequest, schedule_id: UUID) -> Schedule:
    """Changes the fields that are given; every worker follows within a second."""
    given = _given(await strict.body(request, ScheduleEdit))
    version = given.pop("version", None)
    async with database(request).transaction() as session:
        await actions.edit(session, schedule_id, given, version=version, actor=actor(request))
    return await _one(request, schedule_id)


@delete(
    "/schedules/{schedule_id:uuid}",
    guards=[operator],
    operation_class=documented(answer=None, problems=(404, 409)),
    summary="Delete a schedule",
)
async def remove(request: AnyRequest, schedule_id: UUID) -> None:
    """Its history stays. What code owns cannot be deleted here."""
    async with database(request).transaction() as session:
        await actions.delete(session, schedule_id, actor=actor(request))


@post(
    "/schedules/{schedule_id:uuid}/run",
    guards=[operator],
    status_code=202,
    operation_class=documented(answer={"job_id": examples.JOB["job_id"]}, problems=(404,)),
    summary="Run a schedule's job now",
)
async def run(request: AnyRequest, schedule_id: UUID) -> Started:
    """At once, also while it is off or paused; what it is due next stays."""
    async with database(request).transaction() as session:
        job = await actions.run_now(session, schedule_id, actor=actor(request))
    return Started(str(job.id))


@post(
    "/schedules/{schedule_id:uuid}/pause",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=SchedulePause,
        example={"reason": "holidays", "until": "2027-01-07T00:00:00Z"},
        optional_body=True,
        answer=examples.SCHEDULE,
        problems=(404,),
    ),
    summary="Pause a schedule",
)
async def pause(request: AnyRequest, schedule_id: UUID) -> Schedule:
    """Nothing of it is due until it is resumed, or until the pause ends."""
    wish = await strict.body(request, SchedulePause, optional=True)
    async with database(request).transaction() as session:
        await actions.pause(session, schedule_id, reason=wish.reason, until=wish.until, actor=actor(request))
    return await _one(request, schedule_id)


@post(
    "/schedules/{schedule_id:uuid}/resume",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.SCHEDULE, problems=(404,)),
    summary="Resume a schedule",
)
async def resume(request: AnyRequest, schedule_id: UUID) -> Schedule:
    """It is due at its next instant from now."""
    async with database(request).transaction() as session:
        await actions.resume(session, schedule_id, actor=actor(request))
    return await _one(request, schedule_id)


@post(
    "/schedules/{schedule_id:uuid}/duplicate",
    guards=[operator],
    operation_class=documented(answer=examples.SCHEDULE, problems=(404,)),
    summary="Copy a schedule",
)
async def duplicate(request: AnyRequest, schedule_id: UUID) -> Schedule:
    """A copy under another name, switched off."""
    async with database(request).transaction() as session:
        made = await actions.duplicate(session, schedule_id, actor=actor(request))
    return await _one(request, made.id)


@get(
    "/schedules/{schedule_id:uuid}/fires",
    guards=[viewer],
    operation_class=documented(
        query=FireQuery, answer={"items": [examples.FIRE], "next_cursor": None}, problems=(404,)
    ),
    summary="Read a schedule's history",
)
async def fires(request: AnyRequest, schedule_id: UUID) -> FirePage:
    """What became of its due instants, newest first."""
    wish = strict.query(request, FireQuery)
    await _one(request, schedule_id)
    async with database(request).read() as connection:
        found, before = await history(connection, schedule_id, wish.cursor, wish.limit)
    return FirePage([Fire.of(view) for view in found], instant(before))


@post(
    "/schedules/{schedule_id:uuid}/backfill",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=BackfillRequest,
        example={"since": "2026-11-21T00:00:00Z", "until": "2026-11-22T00:00:00Z", "dry_run": True},
        answer={"runs": ["2026-11-21T09:00:00.000000Z"], "left_out": 0, "job_ids": [], "refused": {}},
        problems=(404,),
    ),
    summary="Run instants of the past after all",
)
async def run_past(request: AnyRequest, schedule_id: UUID) -> BackfillAnswer:
    """At most 1,000 instants; those that ran already are left out. Look first with `dry_run`."""
    wish = await strict.body(request, BackfillRequest)
    async with database(request).transaction() as session:
        made = await _plan(session, schedule_id, wish.since, wish.until)
        runs = [exact(at) for at in made.to_run]
        if wish.dry_run:
            return BackfillAnswer(runs, len(made.ran), [], {})
        done = await backfill.backfill(session, schedule_id, wish.since, wish.until, actor=actor(request))
    refused = {exact(at): why for at, why in done.refused.items()}
    return BackfillAnswer(runs, done.left_out, [str(job_id) for job_id in done.job_ids], refused)


routes = [
    list_all, create, try_out, bulk, read, change, remove, run, pause, resume, duplicate, fires, run_past,
]  # fmt: skip


async def _plan(
    session: AsyncSession, schedule_id: UUID, since: datetime, until: datetime
) -> backfill.BackfillPlan:
    schedule = await actions.one(session, schedule_id)
    return await backfill.plan(session, schedule.id, schedule.rule, since, until, utc_now())


async def _one(request: AnyRequest, schedule_id: UUID) -> Schedule:
    return Schedule.of(await _stored(request, schedule_id))


async def _stored(request: AnyRequest, schedule_id: UUID) -> ScheduleView:
    async with database(request).read() as connection:
        view = await one_schedule(connection, schedule_id)
    if view is None:
        raise NotFound(noun="schedule", key=str(schedule_id))
    return view


def _given(wish: Struct) -> dict[str, Any]:
    found = {name: getattr(wish, name) for name in wish.__struct_fields__}
    return {name: value for name, value in found.items() if value is not UNSET}
