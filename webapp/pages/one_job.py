"""One job log: its parts behind tabs, and what a person can do with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from webapp import render
from webapp.arguments import json_text
from webapp.auth import actor, operator, viewer
from webapp.forms import read_form
from webapp.pages import edit_job
from webapp.pages.after import came_from, show_job
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, gone
from webapp.queries.job_logs import one_job
from webapp.queries.one_job import (
    app_trace,
    attempts_of,
    audit_of,
    changed_args,
    doubts_of,
    last_lines,
    last_success,
    same_error,
    state_path,
    trace_of,
)
from webapp.queries.views import JobView
from worker.accounts.models import AuditEntry
from worker.db.base import utc_now
from worker.errors import Invalid, NotAllowedNow, NotFound, TooLate
from worker.joblogs import actions
from worker.joblogs.models import JobLog

TWICE = timedelta(seconds=2)
"""Two clicks on "Run again" within this are one."""
MOST_LINES = 10_000


@get("/job-logs/{job_id:uuid}", guards=[viewer])
async def show(request: AnyRequest, job_id: UUID) -> Answer:
    async with database(request).read() as connection:
        job = await one_job(connection, job_id)
        if job is None:
            return gone(request, "job log", "/job-logs")
        parts = await _parts(request, connection, job)
        tab = request.query_params.get("tab") or _first_tab(job, parts)
        tab = tab if tab in parts else next(iter(parts))
        context = await _TABS[tab](request, connection, job)
    at = f"/job-logs/{job.job_id}"
    return render.page(
        request,
        "job_logs/show.html",
        title=f"{job.job_name} · {job.shown_status}",
        nav="job_logs",
        job=job,
        path=state_path(job),
        tabs=[
            {"key": key, "label": label, "href": address(at, [("tab", key)])} for key, label in parts.items()
        ],
        tab=tab,
        back_href=_list_it_was_in(request),
        **context,
    )


def _list_it_was_in(request: AnyRequest) -> str:
    """The list with its search and page, where one came from it; a script knows it on the further tabs too."""
    place = came_from(request, "/job-logs")
    return place if place.partition("?")[0] == "/job-logs" else "/job-logs"


async def _parts(request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, str]:
    """The tabs that hold something, or may while the page is open."""
    lines, _ = await last_lines(connection, job.job_id, limit=1)
    trace = await trace_of(connection, job)
    live = job.status in ("queued", "running", "scheduled", "retrying")
    holds = {
        "error": ("Error", bool(job.error) or live),
        "attempts": ("Attempts", job.attempt > 0 or live),
        "args": ("Arguments", True),
        "result": ("Result", job.status == "success" or live),
        "logs": ("Logs", bool(lines) or live),
        "trace": (
            "Trace",
            any((trace.schedule, trace.caused_by, trace.rerun_of, trace.same_story, trace.reruns)),
        ),
        "audit": ("Audit", bool(await audit_of(connection, job.job_id))),
        "notes": ("Notes", bool(job.note or job.tags) or render.may_act(request)),
    }
    return {key: label for key, (label, held) in holds.items() if held}


def _first_tab(job: JobView, parts: dict[str, str]) -> str:
    wanted = {"failed": "error", "retrying": "error", "cancelled": "args"}.get(job.status, "result")
    return wanted if wanted in parts else "args"


# What each tab shows


async def _error(_request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    return {
        "app_trace": app_trace(job.traceback),
        "same_error": await same_error(connection, job),
        "doubts": await doubts_of(connection, job),
    }


async def _attempts(_request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    return {"attempts": await attempts_of(connection, job)}


async def _args(_request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    good = await last_success(connection, job) if job.status != "success" else None
    return {"args_text": json_text(job.args), "changed": changed_args(good.args, job.args) if good else None}


async def _result(_request: AnyRequest, _connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    return {"result_text": json_text(job.result)}


async def _logs(request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    text, before = request.query_params.get("lines") or "", _place(request.query_params.get("before") or "")
    lines, more = await last_lines(connection, job.job_id, before=before, text=text.replace("\x00", ""))
    older = [("tab", "logs"), ("lines", text), ("before", lines[0].key)] if more else []
    return {
        "lines": lines,
        "lines_q": text,
        "lines_follow": before is None and not text,
        "older_lines_href": address(f"/job-logs/{job.job_id}", older) if older else None,
        "truncated": bool(lines) and lines[-1].seq >= MOST_LINES,
    }


def _place(text: str) -> tuple[int, int] | None:
    epoch, _, seq = text.partition("-")
    return (int(epoch), int(seq)) if epoch.isdecimal() and seq.isdecimal() and len(text) < 30 else None


async def _trace(_request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    return {"trace": await trace_of(connection, job)}


async def _audit(_request: AnyRequest, connection: AsyncConnection, job: JobView) -> dict[str, Any]:
    return {"entries": await audit_of(connection, job.job_id)}


async def _notes(_request: AnyRequest, _connection: AsyncConnection, _job: JobView) -> dict[str, Any]:
    return {}


_TABS: dict[str, Callable[[AnyRequest, AsyncConnection, JobView], Awaitable[dict[str, Any]]]] = {
    "error": _error,
    "attempts": _attempts,
    "args": _args,
    "result": _result,
    "logs": _logs,
    "trace": _trace,
    "audit": _audit,
    "notes": _notes,
}


# What can be done with it


@post("/job-logs/{job_id:uuid}/retry", guards=[operator])
async def retry(request: AnyRequest, job_id: UUID) -> Answer:
    """The form carries the epoch that the person saw: a second click finds the job queued and changes nothing."""
    epoch = (await read_form(request)).words("epoch")
    seen = int(epoch) if epoch.isdecimal() and len(epoch) < 19 else None

    async def act(session: AsyncSession) -> str:
        await actions.retry(session, job_id, actor=actor(request), epoch=seen)
        return "Queued again."

    return await _do(request, job_id, act)


@post("/job-logs/{job_id:uuid}/cancel", guards=[operator])
async def cancel(request: AnyRequest, job_id: UUID) -> Answer:
    async def act(session: AsyncSession) -> str:
        outcome = await actions.cancel(session, job_id, actor=actor(request))
        return (
            "Cancelled." if outcome == "done" else "Asked to stop. It is cancelled once its code has stopped."
        )

    return await _do(request, job_id, act)


@post("/job-logs/{job_id:uuid}/resolve", guards=[operator])
async def resolve(request: AnyRequest, job_id: UUID) -> Answer:
    return await _resolve(request, job_id, resolved=True)


@post("/job-logs/{job_id:uuid}/unresolve", guards=[operator])
async def unresolve(request: AnyRequest, job_id: UUID) -> Answer:
    return await _resolve(request, job_id, resolved=False)


async def _resolve(request: AnyRequest, job_id: UUID, *, resolved: bool) -> Answer:
    async def act(session: AsyncSession) -> str:
        await actions.edit(session, job_id, actor=actor(request), resolved=resolved)
        return "Resolved, until it happens again." if resolved else "No longer resolved."

    return await _do(request, job_id, act, undo_url=f"/job-logs/{job_id}/unresolve" if resolved else None)


@post("/job-logs/{job_id:uuid}/rerun", guards=[operator])
async def rerun(request: AnyRequest, job_id: UUID) -> Answer:
    """A new job like this one; the reader is taken there. A double click makes one."""
    who = actor(request)
    try:
        async with acting(request) as session:
            await actions.locked(session, job_id)
            made = await session.scalar(
                sa.select(JobLog.id)
                .where(
                    JobLog.rerun_of == job_id,
                    JobLog.user_id == who.name,
                    JobLog.enqueued_at > utc_now() - TWICE,
                )
                .limit(1)
            )
            new_id = made or (await actions.rerun(session, job_id, actor=who)).id
    except NotFound:
        return gone(request, "job log", "/job-logs")
    except Invalid as error:
        return render.redirect(
            request, f"/job-logs/{job_id}/edit", f"It cannot run as it was: {error.message}", "error"
        )
    return render.redirect(request, f"/job-logs/{new_id}", "Running it again as a new job.")


@post("/job-logs/{job_id:uuid}/delete", guards=[operator])
async def delete(request: AnyRequest, job_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            job = await actions.delete(session, job_id, actor=actor(request))
    except NotFound:
        return gone(request, "job log", "/job-logs")
    except NotAllowedNow as error:
        return await show_job(request, job_id, error.message, kind="error")
    back = came_from(request, "/job-logs")
    url = "/job-logs" if str(job_id) in back else back
    return render.redirect(request, url, f"Deleted {job.job_name}.", undo_url=f"/job-logs/{job_id}/restore")


@post("/job-logs/{job_id:uuid}/restore", guards=[operator])
async def restore(request: AnyRequest, job_id: UUID) -> Answer:
    try:
        async with acting(request) as session:
            await actions.restore(session, job_id, actor=actor(request))
    except NotFound:
        return gone(request, "deleted job log", "/job-logs")
    return render.redirect(request, f"/job-logs/{job_id}", "It is back.")


@post("/job-logs/{job_id:uuid}/note", guards=[operator])
async def note(request: AnyRequest, job_id: UUID) -> Answer:
    form = await read_form(request)
    tags = [tag.strip() for tag in form.text("tags").split(",") if tag.strip()]
    form.check()

    async def act(session: AsyncSession) -> str:
        text = form.text("note").replace("\r\n", "\n")
        await actions.edit(session, job_id, actor=actor(request), note=text, tags=list(dict.fromkeys(tags)))
        return "Saved."

    return await _do(request, job_id, act, undo_url=f"/job-logs/{job_id}/note/undo")


@post("/job-logs/{job_id:uuid}/note/undo", guards=[operator])
async def undo_note(request: AnyRequest, job_id: UUID) -> Answer:
    """Puts back the note and tags that this person's last edit replaced."""

    async def act(session: AsyncSession) -> str:
        entries = sa.select(AuditEntry.before).where(
            AuditEntry.object_type == "job",
            AuditEntry.object_id == str(job_id),
            AuditEntry.action == "job.edit",
            AuditEntry.actor == actor(request).name,
        )
        before = await session.scalar(entries.order_by(AuditEntry.id.desc()).limit(1))
        if not before or "note" not in before or "tags" not in before:
            return "There is nothing to undo."
        await actions.edit(
            session, job_id, actor=actor(request), note=before["note"], tags=before["tags"] or []
        )
        return "The note is as it was."

    return await _do(request, job_id, act)


async def _do(
    request: AnyRequest,
    job_id: UUID,
    act: Callable[[AsyncSession], Awaitable[str]],
    *,
    undo_url: str | None = None,
) -> Answer:
    """Does it in one transaction and shows the job as it is then; what is not possible any more says so in place."""
    try:
        async with acting(request) as session:
            words = await act(session)
    except NotFound:
        return gone(request, "job log", "/job-logs")
    except (NotAllowedNow, TooLate) as error:
        return await show_job(request, job_id, error.message, kind="error")
    return await show_job(request, job_id, words, undo_url=undo_url)


routes = [
    show,
    retry,
    cancel,
    resolve,
    unresolve,
    rerun,
    delete,
    restore,
    note,
    undo_note,
    *edit_job.routes,
]
