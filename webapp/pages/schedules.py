"""The pages of schedules: the list, one with its history, the form with its preview, the calendar, the backfill."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.auth import actor, operator, viewer
from webapp.forms import Form, read_form
from webapp.pages import schedule_form
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, engine, gone
from webapp.queries.catalogue import list_catalogue
from webapp.queries.queues import queue_names
from webapp.queries.schedules import (
    ScheduleView,
    history,
    history_rev,
    list_schedules,
    one_schedule,
    schedules_exist,
)
from worker.db.base import utc_now
from worker.errors import ChangedMeanwhile, Invalid, NotFound
from worker.schedules import actions
from worker.schedules.preview import preview

UPCOMING = 5


@get("/schedules", guards=[viewer])
async def schedules(request: AnyRequest) -> Answer:
    q, after = request.query_params.get("q", "").strip()[:200], request.query_params.get("after") or None
    async with database(request).read() as connection:
        found, more = await list_schedules(connection, q=q, after=after)
        some = bool(found) or await schedules_exist(connection)
    return render.page(
        request,
        "schedules/list.html",
        title="Schedules",
        nav="schedules",
        schedules=found,
        q=q,
        some=some,
        newer_href=address("/schedules", [("q", q)]) if after else None,
        older_href=address("/schedules", [("q", q), ("after", more)]) if more else None,
    )


@get("/schedules/{schedule_id:uuid}", guards=[viewer])
async def show(request: AnyRequest, schedule_id: UUID) -> Answer:
    before = _instant(request.query_params.get("before"))
    async with database(request).read() as connection:
        view = await one_schedule(connection, schedule_id)
        if view is None:
            return gone(request, "schedule", "/schedules")
        fires, more = await history(connection, schedule_id, before)
    return render.page(
        request,
        "schedules/show.html",
        title=view.name,
        nav="schedules",
        schedule=view,
        fires=fires,
        history_rev=history_rev(fires),
        upcoming=upcoming(view),
        newest_href=f"/schedules/{view.id}" if before else None,
        older_href=address(f"/schedules/{view.id}", [("before", more.isoformat())]) if more else None,
    )


def upcoming(view: ScheduleView) -> Any:
    """The next instants at which it will fire."""
    if view.next_fire_at is None:
        return None
    rule = schedule_form.rule_of(view)
    return preview(rule, view.next_fire_at - schedule_form.MOMENT, UPCOMING)


# Making and changing


@get("/schedules/new", guards=[operator])
async def new_form(request: AnyRequest) -> Answer:
    name = request.query_params.get("function", "")
    if not name:
        return await _choose_page(request, None)
    if await engine(request).catalogue.get(None, name) is None:
        return gone(request, "job", "/schedules/new")
    return await _form_page(request, name, None)


@post("/schedules/new", guards=[operator])
async def create(request: AnyRequest) -> Answer:
    form = await read_form(request)
    name = form.words("function")
    offer = await engine(request).catalogue.get(None, name)
    if offer is None:
        return gone(request, "job", "/schedules/new")
    if form.flag("preview"):
        return await _form_page(request, name, None, form)
    try:
        wish = schedule_form.wish(form, offer) | {"function": name, "enabled": form.flag("enabled")}
        async with acting(request) as session:
            made = await actions.create(session, wish, actor=actor(request))
    except Invalid as error:
        return await _form_page(request, name, None, form, error.problems)
    return render.redirect(request, f"/schedules/{made.id}", f"Made the schedule {made.name}.")


@get("/schedules/{schedule_id:uuid}/edit", guards=[operator])
async def edit_form(request: AnyRequest, schedule_id: UUID) -> Answer:
    view = await _view(request, schedule_id)
    if view is None:
        return gone(request, "schedule", "/schedules")
    function = request.query_params.get("function", "") or view.function
    if function != view.function and await engine(request).catalogue.get(None, function) is None:
        return gone(request, "job", f"/schedules/{view.id}/job")
    return await _form_page(request, function, view)


@get("/schedules/{schedule_id:uuid}/job", guards=[operator])
async def choose_job(request: AnyRequest, schedule_id: UUID) -> Answer:
    """Which other job the schedule is to start; its arguments come next."""
    view = await _view(request, schedule_id)
    if view is None:
        return gone(request, "schedule", "/schedules")
    return await _choose_page(request, view)


@post("/schedules/{schedule_id:uuid}/edit", guards=[operator])
async def save(request: AnyRequest, schedule_id: UUID) -> Answer:
    form, view = await read_form(request), await _view(request, schedule_id)
    if view is None:
        return gone(request, "schedule", "/schedules")
    function = form.words("function") or view.function
    if form.flag("preview"):
        return await _form_page(request, function, view, form)
    offer = await engine(request).catalogue.get(None, function)
    version = form.words("version")
    try:
        wish = schedule_form.wish(form, offer, schedule_form.kept_args(view, function, offer))
        if function != view.function:
            wish["function"] = function
        async with acting(request) as session:
            await actions.edit(
                session,
                schedule_id,
                wish,
                version=int(version) if version.isdecimal() and len(version) < 10 else None,
                actor=actor(request),
            )
    except Invalid as error:
        return await _form_page(request, function, view, form, error.problems)
    except ChangedMeanwhile as error:
        problem = {"": f"{error.message} What you typed is kept: save again to overwrite it."}
        return await _form_page(request, function, view, form, problem)
    except NotFound:
        return gone(request, "schedule", "/schedules")
    return render.redirect(request, f"/schedules/{schedule_id}", "Saved. It holds from now on.")


@get("/schedules/preview", guards=[viewer])
async def try_out(request: AnyRequest) -> Answer:
    """What is being typed, in a sentence and in dates: fetched while typing."""
    form = Form(list(request.query_params.multi_items()))
    of = form.words("schedule_id")
    view = None
    if of:
        try:
            view = await _view(request, UUID(of))
        except ValueError:
            view = None
    tried = schedule_form.tried(form, view, utc_now())
    return render.fragment(
        request, "schedules/_preview.html", tried=tried, time_zone=form.words("time_zone") or "UTC"
    )


async def _form_page(
    request: AnyRequest,
    function: str,
    view: ScheduleView | None,
    sent: Form | None = None,
    problems: dict[str, str] | None = None,
) -> Answer:
    problems = problems or {}
    offer = await engine(request).catalogue.get(None, function)
    at = address(f"/schedules/{view.id}/edit" if view else "/schedules/new", [("function", function)])
    context = schedule_form.args_context(
        offer, schedule_form.kept_args(view, function, offer), sent, problems,
        as_json=request.query_params.get("as") == "json", at=at,
    )  # fmt: skip
    values = schedule_form.typed(sent) if sent else schedule_form.shown(view)
    async with database(request).read() as connection:
        queues = await queue_names(connection)
    return render.page(
        request,
        "schedules/edit.html",
        title=f"Edit {view.name}" if view else f"Schedule {function}",
        nav="schedules",
        status=422 if problems else 200,
        schedule=view,
        function=function,
        doc=offer.doc.strip().partition("\n")[0] if offer else "",
        values=values,
        problems=problems,
        enabled=sent.flag("enabled") if sent else True,
        zones=schedule_form.with_own(schedule_form.zone_names(), values["time_zone"]),
        missed=schedule_form.MISSED,
        overlap=schedule_form.OVERLAP,
        queues=[
            ("", "the job's own"),
            *((name, name) for name in schedule_form.with_own(sorted(queues), values["queue"])),
        ],
        tried=schedule_form.tried(sent or Form(list(values.items())), view, utc_now()),
        time_zone=values["time_zone"] or "UTC",
        **context,
    )


async def _choose_page(request: AnyRequest, view: ScheduleView | None) -> Answer:
    async with database(request).read() as connection:
        offered = await list_catalogue(connection)
    return render.page(
        request,
        "schedules/choose.html",
        title="Another job" if view else "New schedule",
        nav="schedules",
        schedule=view,
        functions=[(job.name, job.summary) for job in offered],
    )


async def _view(request: AnyRequest, schedule_id: UUID) -> ScheduleView | None:
    async with database(request).read() as connection:
        return await one_schedule(connection, schedule_id)


def _instant(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


routes = [schedules, show, new_form, create, edit_form, choose_job, save, try_out]
