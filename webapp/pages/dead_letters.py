"""Dead letters: failures that nobody has dealt with, by their cause; retried, retried edited, or resolved as a group."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.arguments import json_text, read_json
from webapp.auth import operator, viewer
from webapp.filters import type_words
from webapp.forms import Form, read_form
from webapp.pages import bulk
from webapp.pages.shared import Answer, AnyRequest, address, database, engine
from webapp.queries.job_logs import list_jobs, one_job
from webapp.queries.one_job import app_trace
from worker.db.base import utc_now
from worker.errors import Invalid, UnknownJob
from worker.joblogs.dead_letters import FailureGroup, failure_groups, one_group
from worker.joblogs.models import JobLog
from worker.joblogs.reruns import changed_args
from worker.joblogs.search import JobFilter
from worker.jobs import secret

GROUPS = 50
ROWS = 50
PATH = "/dead-letters"


@get(PATH, guards=[viewer])
async def show(request: AnyRequest) -> Answer:
    before = _moment(request.query_params.get("before", ""))
    async with database(request).read() as connection:
        groups = await failure_groups(connection, GROUPS + 1, before)
    older = (
        address(PATH, [("before", groups[GROUPS - 1].last_at.isoformat())]) if len(groups) > GROUPS else None
    )
    return render.page(
        request,
        "dead_letters/list.html",
        title="Dead letters",
        nav="dead_letters",
        groups=groups[:GROUPS],
        older_href=older,
        first_href=PATH if before else None,
        live=before is None,
        rev="",
    )


@get("/dead-letters/{fingerprint:str}", guards=[viewer])
async def group(request: AnyRequest, fingerprint: str) -> Answer:
    async with database(request).read() as connection:
        found = await one_group(connection, fingerprint)
        if found is None:
            return _settled(request)
        wanted = JobFilter(statuses=("failed",), meanings=("unresolved",), groups=(fingerprint,))
        jobs = (await list_jobs(connection, wanted, limit=ROWS)).items
        newest = await one_job(connection, found.last_job_id)
    return render.page(
        request,
        "dead_letters/group.html",
        title=f"{found.job_name}: {found.error[:80] or 'failed'}",
        nav="dead_letters",
        group=found,
        rev="",
        jobs=jobs,
        trace=(app_trace(newest.traceback) or newest.traceback) if newest else None,
        all_href=address(
            "/job-logs", [("status", "failed"), ("f", f"group:{fingerprint}"), ("f", "is:unresolved")]
        ),
        cutoff=utc_now().isoformat(),
    )


@get("/dead-letters/{fingerprint:str}/edit", guards=[operator])
async def edit_form(request: AnyRequest, fingerprint: str) -> Answer:
    return await _edit_page(request, fingerprint)


@post("/dead-letters/{fingerprint:str}/edit", guards=[operator])
async def edit(request: AnyRequest, fingerprint: str) -> Answer:
    """Checks the changes against the newest job of the group, and shows what would happen."""
    form = await read_form(request)
    async with database(request).read() as connection:
        found = await one_group(connection, fingerprint)
    if found is None:
        return _settled(request)
    try:
        changes = _changes(form)
        async with database(request).session() as session:
            job = await session.get_one(JobLog, found.last_job_id)
            await changed_args(session, job, changes)
    except Invalid as error:
        return await _edit_page(request, fingerprint, form, error.problems)
    except UnknownJob as error:
        return await _edit_page(request, fingerprint, form, {"args": error.message})
    pairs = [("scope", "matching"), ("query", found.query), ("args", form.text("args"))]
    wanted = {"q": found.query, "args": changes}
    return await bulk.preview(request, Form(pairs), "rerun", wanted, utc_now())


routes = [show, group, edit_form, edit]


async def _edit_page(
    request: AnyRequest, fingerprint: str, form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    async with database(request).read() as connection:
        found = await one_group(connection, fingerprint)
        if found is None:
            return _settled(request)
        example = await _args_of(connection, found)
    offer = await engine(request).catalogue.get(None, found.job_name)
    return render.page(
        request,
        "dead_letters/edit.html",
        title=f"Retry edited: {found.job_name}",
        nav="dead_letters",
        status=422 if problems else 200,
        group=found,
        typed=form.text("args") if form else "{\n  \n}",
        error="; ".join(
            what if name == "args" else f"{name} {what}" for name, what in (problems or {}).items()
        ),
        example=example,
        parameters=[{"name": field.name, "type_words": type_words(field.as_json())} for field in offer.fields]
        if offer
        else [],
    )


def _changes(form: Form) -> dict[str, Any]:
    """The arguments to replace, at least one."""
    changes = read_json(form.text("args"))
    if not changes:
        raise Invalid({"args": "names no argument to replace; to retry as they are, go back"})
    return changes


async def _args_of(connection: AsyncConnection, found: FailureGroup) -> str:
    """The newest job's arguments, as a person may see them."""
    job = await one_job(connection, found.last_job_id)
    return json_text(secret.mask(job.args)) if job is not None and job.args is not None else ""


def _settled(request: AnyRequest) -> Answer:
    return render.redirect(
        request, PATH, "Nothing of that group is left: it is retried, resolved or deleted."
    )


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None
