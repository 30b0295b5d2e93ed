"""What is done with schedules from the desk: switch, run, pause, copy, delete, backfill; and the calendar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.auth import actor, operator, viewer
from webapp.filters import plural
from webapp.forms import Form, read_form
from webapp.pages import schedule_form
from webapp.pages.after import came_from
from webapp.pages.shared import Answer, AnyRequest, acting, cached, database, gone
from webapp.queries.schedules import coming, load_schedules, one_schedule
from worker.db.base import utc_now
from worker.errors import DeskError, Invalid, NotFound, OwnedByCode
from worker.schedules import actions, backfill
from worker.schedules.preview import Calendar, calendar, heat

SPANS = {"24h": (timedelta(minutes=15), 96), "7d": (timedelta(hours=1), 168)}
MOST_SELECTED = 500
SHOWN_INSTANTS = 50


# One schedule


@post("/schedules/{schedule_id:uuid}/enable", guards=[operator])
async def enable(request: AnyRequest, schedule_id: UUID) -> Answer:
    return await _do(request, schedule_id, actions.enable, "Switched on.", undo="disable")


@post("/schedules/{schedule_id:uuid}/disable", guards=[operator])
async def disable(request: AnyRequest, schedule_id: UUID) -> Answer:
    return await _do(request, schedule_id, actions.disable, "Switched off.", undo="enable")


@post("/schedules/{schedule_id:uuid}/resume", guards=[operator])
async def resume(request: AnyRequest, schedule_id: UUID) -> Answer:
    return await _do(request, schedule_id, actions.resume, "Resumed.")


@post("/schedules/{schedule_id:uuid}/run", guards=[operator])
async def run(request: AnyRequest, schedule_id: UUID) -> Answer:
    return await _do(request, schedule_id, actions.run_now, "Its job was started.")


@post("/schedules/{schedule_id:uuid}/duplicate", guards=[operator])
async def duplicate(request: AnyRequest, schedule_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            made = await actions.duplicate(session, schedule_id, actor=actor(request))
    except NotFound:
        return gone(request, "schedule", "/schedules")
    except Invalid as error:
        return render.redirect(request, f"/schedules/{schedule_id}", error.message, "error")
    return render.redirect(
        request, f"/schedules/{made.id}/edit", "A copy, switched off: change it and switch it on."
    )


@post("/schedules/{schedule_id:uuid}/delete", guards=[operator])
async def delete(request: AnyRequest, schedule_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            gone_now = await actions.delete(session, schedule_id, actor=actor(request))
    except NotFound:
        return gone(request, "schedule", "/schedules")
    except OwnedByCode as error:
        return render.redirect(request, f"/schedules/{schedule_id}", error.message, "error")
    return render.redirect(
        request, "/schedules", f"Deleted {gone_now.name}.", undo_url=f"/schedules/{schedule_id}/restore"
    )


@post("/schedules/{schedule_id:uuid}/restore", guards=[operator])
async def restore(request: AnyRequest, schedule_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            back = await actions.restore(session, schedule_id, actor=actor(request))
    except NotFound:
        return gone(request, "schedule", "/schedules")
    return render.redirect(request, f"/schedules/{schedule_id}", f"{back.name} is back.")


async def _do(
    request: AnyRequest,
    schedule_id: UUID,
    action: Callable[..., Awaitable[Any]],
    said: str,
    undo: str | None = None,
) -> Answer:
    """Acts, and shows the schedule as it stands now."""
    kind, undo_url = "ok", f"/schedules/{schedule_id}/{undo}" if undo else None
    try:
        async with acting(request) as session:
            await action(session, schedule_id, actor=actor(request))
    except NotFound as error:
        if error.facts.get("noun") == "schedule":
            return gone(request, "schedule", "/schedules")
        said, kind, undo_url = error.message, "error", None
    except DeskError as error:
        said, kind, undo_url = error.message, "error", None
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, f"/schedules/{schedule_id}"), said, kind, undo_url)
    async with database(request).read() as connection:
        view = await one_schedule(connection, schedule_id)
    if view is None:
        return gone(request, "schedule", "/schedules")
    return render.fragment(
        request,
        "schedules/_after.html",
        flash=said,
        kind=kind,
        undo_url=undo_url,
        schedule=view,
        rev=view.shown_rev,
    )


# Pausing, one or many


@get("/schedules/pause", guards=[operator])
async def pause_form(request: AnyRequest) -> Answer:
    ids = _ids(request.query_params.getall("id", []))
    return await _pause_page(request, ids)


@post("/schedules/pause/chosen", guards=[operator])
async def pause_chosen(request: AnyRequest) -> Answer:
    """The same page for what is selected in the list."""
    return await _pause_page(request, _ids((await read_form(request)).many("id")))


@post("/schedules/pause", guards=[operator])
async def pause(request: AnyRequest) -> Answer:
    form = await read_form(request)
    ids = _ids(form.many("id"))
    problems = dict(form.problems)
    until = schedule_form.moment(form, "until", problems)
    if problems:
        return await _pause_page(request, ids, form, problems)
    try:
        async with acting(request) as session:
            done = await actions.pause_many(
                session, ids, reason=form.words("reason"), until=until, actor=actor(request)
            )
    except Invalid as error:
        return await _pause_page(request, ids, form, error.problems)
    back = f"/schedules/{ids[0]}" if len(ids) == 1 else "/schedules"
    if not done:
        return gone(request, "schedule", "/schedules")
    undo = "/schedules/resume?" + "&".join(f"id={one.id}" for one in done)
    return render.redirect(
        request, back, f"Paused {plural(len(done), 'schedule')}.", undo_url=undo if len(done) <= 20 else None
    )


@post("/schedules/resume", guards=[operator])
async def resume_many(request: AnyRequest) -> Answer:
    """Those of the form, or of the address: an undo has no fields."""
    form = await read_form(request)
    ids = _ids([*form.many("id"), *request.query_params.getall("id", [])])
    async with acting(request) as session:
        done = await actions.resume_many(session, ids, actor=actor(request))
    back = f"/schedules/{ids[0]}" if len(ids) == 1 else "/schedules"
    return render.redirect(request, back, f"Resumed {plural(len(done), 'schedule')}.")


async def _pause_page(
    request: AnyRequest, ids: list[UUID], form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    async with database(request).read() as connection:
        found = await load_schedules(connection, ids, fires=0)
    if not found:
        return render.redirect(request, "/schedules", "Select the schedules to pause first.", "error")
    views = sorted(found.values(), key=lambda view: view.name)
    return render.page(
        request,
        "schedules/pause.html",
        title="Pause",
        nav="schedules",
        status=422 if problems else 200,
        schedules=views,
        reason=form.text("reason") if form else "",
        until=form.text("until") if form else "",
        problems=problems or {},
        back_href=f"/schedules/{views[0].id}" if len(views) == 1 else "/schedules",
    )


def _ids(texts: list[str]) -> list[UUID]:
    found = []
    for text in texts[:MOST_SELECTED]:
        try:
            found.append(UUID(text))
        except ValueError:
            continue
    return found


# Backfill


@get("/schedules/{schedule_id:uuid}/backfill", guards=[operator])
async def backfill_form(request: AnyRequest, schedule_id: UUID) -> Answer:
    return await _backfill_page(request, schedule_id, Form(list(request.query_params.multi_items())))


@post("/schedules/{schedule_id:uuid}/backfill", guards=[operator])
async def run_backfill(request: AnyRequest, schedule_id: UUID) -> Answer:
    form = await read_form(request)
    problems: dict[str, str] = {}
    since, until = (schedule_form.moment(form, name, problems) for name in ("since", "until"))
    if problems or since is None or until is None:
        return await _backfill_page(request, schedule_id, form)
    try:
        async with acting(request) as session:
            done = await backfill.backfill(session, schedule_id, since, until, actor=actor(request))
    except NotFound:
        return gone(request, "schedule", "/schedules")
    except Invalid:
        return await _backfill_page(request, schedule_id, form)
    said = f"Started {plural(len(done.job_ids), 'job')}"
    said += f"; {done.left_out} had run already" if done.left_out else ""
    said += f"; {len(done.refused)} refused: {next(iter(done.refused.values()))}" if done.refused else ""
    kind = "error" if done.refused else "ok"
    return render.redirect(request, f"/schedules/{schedule_id}", f"{said}.", kind)


async def _backfill_page(request: AnyRequest, schedule_id: UUID, form: Form) -> Answer:
    """The range and, once there is one, what it would run."""
    problems: dict[str, str] = {}
    since, until = (schedule_form.moment(form, name, problems) for name in ("since", "until"))
    made = None
    async with database(request).read() as connection:
        view = await one_schedule(connection, schedule_id)
        if view is None:
            return gone(request, "schedule", "/schedules")
        if not problems and since is not None and until is not None:
            try:
                rule = schedule_form.rule_of(view)
                made = await backfill.plan(connection, schedule_id, rule, since, until, utc_now())
            except Invalid as error:
                problems = dict(error.problems)
    return render.page(
        request,
        "schedules/backfill.html",
        title=f"Backfill {view.name}",
        nav="schedules",
        status=422 if problems else 200,
        schedule=view,
        since=form.text("since"),
        until=form.text("until"),
        problems=problems,
        errors=[(name, schedule_form.LABELS[name], what) for name, what in problems.items()],
        plan=made,
        shown=made.to_run[:SHOWN_INSTANTS] if made else (),
        limit=backfill.LIMIT,
    )


# Calendar


@get("/schedules/calendar", guards=[viewer])
async def show_calendar(request: AnyRequest) -> Answer:
    span = request.query_params.get("span", "24h")
    span = span if span in SPANS else "24h"
    start, made = await cached(request).get(f"calendar {span}", 15.0, lambda: _calendar(request, span))
    return render.page(
        request,
        "schedules/calendar.html",
        title="Calendar",
        nav="schedules",
        span=span,
        rows=_grid(start, made, span),
        columns=_columns(start, span),
        total=sum(made.counts),
        collisions=made.collisions,
        frequent=made.frequent,
        left_out=made.left_out,
    )


async def _calendar(request: AnyRequest, span: str) -> tuple[datetime, Calendar]:
    """Counted in a thread: ten thousand schedules take a second."""
    bucket, buckets = SPANS[span]
    start = utc_now().replace(minute=0, second=0, microsecond=0)
    if span == "7d":
        start = start.replace(hour=0)
    async with database(request).read() as connection:
        found = await coming(connection)
    return start, await asyncio.to_thread(calendar, found, start, bucket, buckets)


def _grid(start: datetime, made: Calendar, span: str) -> list[dict[str, Any]]:
    """The buckets as rows of cells: quarters of an hour below each other, or one day a row."""
    bucket, buckets = SPANS[span]
    steps = heat(made.counts)
    cells = [
        {"at": start + index * bucket, "count": made.counts[index], "heat": steps[index]}
        for index in range(buckets)
    ]
    if span == "24h":
        return [{"label": f":{15 * quarter:02d}", "cells": cells[quarter::4]} for quarter in range(4)]
    return [
        {"label": f"{start + timedelta(days=day):%a %d %b}", "cells": cells[24 * day : 24 * day + 24]}
        for day in range(7)
    ]


def _columns(start: datetime, span: str) -> list[str]:
    first = start.hour if span == "24h" else 0
    return [f"{(first + hour) % 24:02d}" for hour in range(24)]


routes = [
    show_calendar, pause_chosen, pause_form, pause, resume_many, enable, disable, resume, run, duplicate, delete, restore,
    backfill_form, run_backfill,
]  # fmt: skip
