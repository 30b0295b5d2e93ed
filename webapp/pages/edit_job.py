"""Editing a job's arguments: in place while it waits, else as a new job with the old one as its origin."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import get, post

from webapp import render
from webapp.arguments import by_field, controls, defaults, json_text, read, read_json
from webapp.auth import actor, operator
from webapp.forms import Form, read_form
from webapp.pages.shared import Answer, AnyRequest, acting, database, engine, gone
from webapp.queries.job_logs import one_job
from webapp.queries.views import JobView
from worker.errors import Invalid, NotAllowedNow, NotFound, UnknownJob
from worker.joblogs import actions
from worker.jobs.fields import Field


@get("/job-logs/{job_id:uuid}/edit", guards=[operator])
async def form(request: AnyRequest, job_id: UUID) -> Answer:
    job = await _job(request, job_id)
    if job is None:
        return gone(request, "job log", "/job-logs")
    return await _page(request, job)


@post("/job-logs/{job_id:uuid}/edit", guards=[operator])
async def save(request: AnyRequest, job_id: UUID) -> Answer:
    job = await _job(request, job_id)
    if job is None:
        return gone(request, "job log", "/job-logs")
    sent = await read_form(request)
    try:
        sent.check()
        offer = await engine(request).catalogue.get(None, job.job_name)
        as_json = offer is None or "args" in sent.values
        args = (
            read_json(sent.text("args")) if as_json or offer is None else read(offer.fields, sent, job.args)
        )
        async with acting(request) as session:
            if job.actions.can_edit:
                await actions.edit(session, job_id, actor=actor(request), args=args)
                return render.redirect(
                    request, f"/job-logs/{job_id}", "Saved: it will run with these arguments."
                )
            new = await actions.rerun(session, job_id, actor=actor(request), args=args)
        return render.redirect(request, f"/job-logs/{new.id}", "Running with these arguments, as a new job.")
    except (NotFound, UnknownJob):
        return render.redirect(request, f"/job-logs/{job_id}", "No worker offers this job now.", "error")
    except NotAllowedNow as error:
        return render.redirect(request, f"/job-logs/{job_id}", error.message, "error")
    except Invalid as error:
        return await _page(request, job, sent, error.problems)


async def _job(request: AnyRequest, job_id: UUID) -> JobView | None:
    async with database(request).read() as connection:
        job = await one_job(connection, job_id)
    return job if job is not None and job.deleted_at is None and job.status != "running" else None


async def _page(
    request: AnyRequest, job: JobView, sent: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    offer = await engine(request).catalogue.get(None, job.job_name)
    as_json = (
        offer is None
        or request.query_params.get("as") == "json"
        or (sent is not None and "args" in sent.values)
    )
    fields = offer.fields if offer else ()
    context = fields_context(
        fields, (job.args or {}) if as_json else defaults(fields) | (job.args or {}), sent, problems or {}, as_json=as_json,
        at=f"/job-logs/{job.job_id}/edit",
    )  # fmt: skip
    return render.page(
        request,
        "job_logs/edit.html",
        title=f"Edit {job.job_name}",
        nav="job_logs",
        status=422 if problems else 200,
        job=job,
        in_place=job.actions.can_edit,
        submit_label="Save" if job.actions.can_edit else "Run with these",
        **context,
    )


def fields_context(
    fields: tuple[Field, ...] | list[Field],
    args: dict[str, Any],
    sent: Form | None,
    problems: dict[str, str],
    *,
    as_json: bool,
    at: str,
) -> dict[str, Any]:
    """What jobs/_fields.html needs, and the list of mistakes above the form."""
    found = by_field(problems, fields)
    text = sent.text("args") if sent is not None and "args" in sent.values else json_text(args)
    json_error = (
        "; ".join(f"{name} {what}" if name != "args" else what for name, what in found.items()) or None
    )
    return {
        "fields": controls(fields, args, form=sent, problems=found),
        "errors": [("" if as_json else f"arg.{name}", name, what) for name, what in found.items()],
        "as_json": as_json,
        "json_text": text,
        "json_error": json_error if as_json else None,
        "toggle_href": at if as_json else f"{at}?as=json",
    }


routes = [form, save]
