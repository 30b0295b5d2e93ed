"""The jobs that workers offer: what they are, how they have been going, and the form that runs one."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.arguments import defaults, read, read_json
from webapp.auth import actor, operator, viewer
from webapp.filters import default_words, retry_words, type_words
from webapp.forms import Form, read_form
from webapp.pages.edit_job import fields_context
from webapp.pages.shared import Answer, AnyRequest, acting, cached, database, engine, gone
from webapp.queries.catalogue import CatalogueView, list_catalogue, one_catalogue_job
from webapp.queries.job_logs import list_jobs
from webapp.queries.queues import queue_names
from webapp.queries.schedules import of_function
from worker.errors import Invalid, KeyBusy, NotFound, QueueFull, UnknownJob
from worker.joblogs import actions
from worker.joblogs.idempotency import claim_key, settle_key
from worker.joblogs.search import JobFilter
from worker.jobs import actions as controls
from worker.jobs.catalogue import JobOffer
from worker.jobs.rate import rate_words

OPTIONS = ("queue", "priority", "run_at", "unique_key", "tags")


@get("/jobs", guards=[viewer])
async def jobs(request: AnyRequest) -> Answer:
    q = request.query_params.get("q", "").strip()
    async with database(request).read() as connection:
        found: list[CatalogueView] = await cached(request).get(
            "catalogue", 5.0, lambda: list_catalogue(connection)
        )
    wanted = [job for job in found if all(word in _text(job) for word in q.lower().split())]
    return render.page(request, "jobs/list.html", title="Jobs", nav="jobs", jobs=wanted, q=q)


def _text(job: CatalogueView) -> str:
    return f"{job.name} {job.queue} {job.doc} {job.module}".lower()


@get("/jobs/{name:str}", guards=[viewer])
async def show(request: AnyRequest, name: str) -> Answer:
    async with database(request).read() as connection:
        job = await one_catalogue_job(connection, name)
        if job is None:
            return gone(request, "job", "/jobs")
        recent = (await list_jobs(connection, JobFilter(jobs=(name,)), limit=10)).items
        schedules = await of_function(connection, name)
    return render.page(
        request,
        "jobs/show.html",
        title=name,
        nav="jobs",
        job=_shown(job),
        recent=recent,
        schedules=schedules,
    )


def _shown(job: CatalogueView) -> dict[str, Any]:
    """The view with its machine-made parts in words."""
    words = {
        "runs": job.runs,
        "success_rate": job.success_rate,
        "p95_seconds": job.p95_seconds,
        "last_run_at": job.last_run_at,
        "parameters": [
            {**field, "type_words": type_words(field), "default_words": default_words(field)}
            for field in job.parameters
        ],
        "rate_words": rate_words(job.rate_limit) if job.rate_limit else None,
        "retry_words": retry_words(job.max_retries, job.retry),
    }
    return {**{key: value for key, value in asdict(job).items() if key != "runs"}, **words}


# Running one


@get("/jobs/{name:str}/run", guards=[operator])
async def run_form(request: AnyRequest, name: str) -> Answer:
    offer = await engine(request).catalogue.get(None, name)
    return gone(request, "job", "/jobs") if offer is None else await _run_page(request, offer)


@post("/jobs/{name:str}/run", guards=[operator])
async def run(request: AnyRequest, name: str) -> Answer:
    """Accepts the job and goes to it. The form's own key makes a double click one job."""
    offer = await engine(request).catalogue.get(None, name)
    if offer is None:
        return gone(request, "job", "/jobs")
    form = await read_form(request)
    try:
        args, options = _read(offer, form)
        job_id, said = await _accept(request, name, args, options, form.words("once"))
    except Invalid as error:
        return await _run_page(request, offer, form, error.problems)
    except (KeyBusy, QueueFull) as error:
        return await _run_page(request, offer, form, {"": error.message})
    except UnknownJob:
        return gone(request, "job", "/jobs")
    return render.redirect(request, f"/job-logs/{job_id}", said)


def _read(offer: JobOffer, form: Form) -> tuple[dict[str, Any], dict[str, Any]]:
    """Everything that was typed, with every mistake of it at once."""
    problems = dict(form.problems)
    args: dict[str, Any] = {}
    try:
        args = read_json(form.text("args")) if "args" in form.values else read(offer.fields, form)
        offer.validate(args)
    except Invalid as error:
        problems |= error.problems
    options: dict[str, Any] = {
        "queue": form.words("queue") or None,
        "unique_key": form.words("unique_key") or None,
    }
    options["tags"] = tuple(tag.strip() for tag in form.text("tags").split(",") if tag.strip())
    priority = form.words("priority", "5")
    if priority.isdecimal() and int(priority) <= 9:
        options["priority"] = int(priority)
    else:
        problems["priority"] = "must be a whole number from 0 (first) to 9 (last)"
    try:
        options["run_at"] = _moment(form.words("run_at"))
    except ValueError:
        problems["run_at"] = "must be a time, such as 2026-11-22T10:30"
    if problems:
        raise Invalid(problems)
    return args, options


def _moment(typed: str) -> datetime | None:
    if not typed:
        return None
    at = datetime.fromisoformat(typed)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _accept(
    request: AnyRequest, name: str, args: dict[str, Any], options: dict[str, Any], once: str
) -> tuple[Any, str]:
    """The job's id, and what to say about it."""
    key = f"form {hashlib.sha256(once.encode()).hexdigest()}" if once else ""
    user = str(request.user.id)
    async with acting(request) as session:
        if key and (first := await claim_key(session, key, user, name)) is not None:
            return first, "It was started already."
        job = await actions.enqueue(session, name, args, actor=actor(request), **options)
        if key:
            await settle_key(session, key, user, job.id)
        if actions.duplicate(job):
            return job.id, "A live job holds this unique key: here it is."
    return job.id, "Accepted."


async def _run_page(
    request: AnyRequest, offer: JobOffer, form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    problems = problems or {}
    as_json = request.query_params.get("as") == "json" or (form is not None and "args" in form.values)
    typed = {name: form.text(name) if form else "" for name in OPTIONS}
    async with database(request).read() as connection:
        job = await one_catalogue_job(connection, offer.name)
        queues = await _queues(connection, offer.queue)
    option_errors = {name: problems[name] for name in OPTIONS if name in problems}
    context = fields_context(
        offer.fields,
        {} if as_json and form is None else defaults(offer.fields),
        form,
        {name: what for name, what in problems.items() if name not in option_errors},
        as_json=as_json,
        at=f"/jobs/{offer.name}/run",
    )
    context["errors"] += [(name, name.replace("_", " "), what) for name, what in option_errors.items()]
    return render.page(
        request,
        "jobs/run.html",
        title=f"Run {offer.name}",
        nav="jobs",
        status=422 if problems else 200,
        job=offer,
        options={**typed, "queue": typed["queue"] or offer.queue, "priority": typed["priority"] or "5"},
        option_errors=option_errors,
        queues=[(queue, queue) for queue in queues],
        has_worker=job is not None and job.has_worker,
        once=form.words("once") if form else secrets.token_urlsafe(16),
        **context,
    )


async def _queues(connection: AsyncConnection, own: str) -> list[str]:
    return sorted({own, *await queue_names(connection)})


# Controls


@get("/jobs/{name:str}/pause", guards=[operator])
async def pause_form(request: AnyRequest, name: str) -> Answer:
    async with database(request).read() as connection:
        job = await one_catalogue_job(connection, name)
    if job is None:
        return gone(request, "job", "/jobs")
    return render.page(
        request,
        "overview/pause.html",
        title=f"Pause {name}",
        nav="jobs",
        kind="job",
        name=name,
        action=f"/jobs/{name}/pause",
        back_href=f"/jobs/{name}",
        waiting=None,
        running=None,
        limit_href=f"/jobs/{name}/limit",
    )


@post("/jobs/{name:str}/pause", guards=[operator])
async def pause(request: AnyRequest, name: str) -> Answer:
    form = await read_form(request)
    try:
        async with acting(request) as session:
            await controls.pause_job(session, name, reason=form.words("reason"), actor=actor(request))
    except NotFound:
        return gone(request, "job", "/jobs")
    except Invalid as error:
        return render.redirect(request, f"/jobs/{name}/pause", error.message, "error")
    return render.redirect(request, f"/jobs/{name}", f"Paused {name}.", undo_url=f"/jobs/{name}/resume")


@post("/jobs/{name:str}/resume", guards=[operator])
async def resume(request: AnyRequest, name: str) -> Answer:
    try:
        async with acting(request) as session:
            await controls.resume_job(session, name, actor=actor(request))
    except NotFound:
        return gone(request, "job", "/jobs")
    return render.redirect(request, f"/jobs/{name}", f"Resumed {name}.")


routes = [jobs, show, run_form, run, pause_form, pause, resume]
