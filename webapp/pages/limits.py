"""The limits of a queue or a job: how many at once, and how often one may start. The form keeps what was typed."""

from __future__ import annotations

from typing import Any

from litestar import get, post

from webapp import render
from webapp.auth import actor, operator
from webapp.forms import Form, read_form
from webapp.pages.shared import Answer, AnyRequest, acting, database, gone, late_after_s
from webapp.queries.catalogue import one_catalogue_job
from webapp.queries.queues import load_queues, queue_names
from worker.errors import Invalid, NotFound
from worker.jobs import actions
from worker.jobs.rate import UNITS, parse_rate, split_rate

FIELDS = {"concurrency": "At most at once", "rate": "Starts", "per": "In a", "burst": "At once after a pause"}
PER = [(unit, f"a{'n' if unit == 'h' else ''} {word}") for unit, (word, _) in UNITS.items()]


@get("/queues/{name:str}/limit", guards=[operator])
async def queue_form(request: AnyRequest, name: str) -> Answer:
    return await _queue_page(request, name)


@post("/queues/{name:str}/limit", guards=[operator])
async def limit_queue(request: AnyRequest, name: str) -> Answer:
    form = await read_form(request)
    try:
        concurrency = _number(form, "concurrency")
        form.check()
        async with acting(request) as session:
            await actions.set_queue_limit(session, name, concurrency, actor=actor(request))
    except Invalid as error:
        if "queue" in error.problems:
            return gone(request, "queue", "/")
        return await _queue_page(request, name, form, error.problems)
    said = f"at most {concurrency} at once" if concurrency else "no limit"
    return render.redirect(request, "/", f"The queue {name}: {said}.")


@get("/jobs/{name:str}/limit", guards=[operator])
async def job_form(request: AnyRequest, name: str) -> Answer:
    return await _job_page(request, name)


@post("/jobs/{name:str}/limit", guards=[operator])
async def limit_job(request: AnyRequest, name: str) -> Answer:
    form = await read_form(request)
    try:
        limits = {
            "concurrency": _number(form, "concurrency"),
            "rate": _rate(form),
            "burst": _number(form, "burst"),
        }
        form.check()
        async with acting(request) as session:
            await actions.set_job_limit(session, name, actor=actor(request), **limits)  # type: ignore[arg-type]
    except NotFound:
        return gone(request, "job", "/jobs")
    except Invalid as error:
        return await _job_page(request, name, form, error.problems)
    return render.redirect(request, f"/jobs/{name}", "The limits are set.")


routes = [queue_form, limit_queue, job_form, limit_job]


async def _queue_page(
    request: AnyRequest, name: str, form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    async with database(request).read() as connection:
        if name not in await queue_names(connection):
            return gone(request, "queue", "/")
        queue = (await load_queues(connection, [name], late_after_s(request)))[name]
    stands = {"concurrency": queue.limit}
    return _page(request, "queue", name, f"/queues/{name}/limit", "/", stands, form, problems)


async def _job_page(
    request: AnyRequest, name: str, form: Form | None = None, problems: dict[str, str] | None = None
) -> Answer:
    async with database(request).read() as connection:
        job = await one_catalogue_job(connection, name)
    if job is None:
        return gone(request, "job", "/jobs")
    rate, per = split_rate(job.rate_limit) if job.rate_limit else ("", "m")
    stands = {
        "concurrency": job.concurrency,
        "rate": f"{rate:g}" if rate else "",
        "per": per,
        "burst": job.rate_burst,
    }
    return _page(request, "job", name, f"/jobs/{name}/limit", f"/jobs/{name}", stands, form, problems)


def _page(
    request: AnyRequest,
    kind: str,
    name: str,
    action: str,
    back_href: str,
    stands: dict[str, Any],
    form: Form | None,
    problems: dict[str, str] | None,
) -> Answer:
    """`stands` is what holds now; a refused form shows what was typed instead."""
    named = {"rate_limit": "rate", "rate_burst": "burst"}
    wrong = {named.get(field, field): what for field, what in (problems or {}).items()}
    typed = {
        field: form.text(field) if form else ("" if value is None else value)
        for field, value in stands.items()
    }
    return render.page(
        request,
        "jobs/limit.html",
        title=f"Limit {name}",
        nav="jobs" if kind == "job" else "overview",
        status=422 if wrong else 200,
        kind=kind,
        name=name,
        action=action,
        back_href=back_href,
        typed=typed,
        per=PER,
        errors=wrong,
        summary=[(field, FIELDS.get(field, field), what) for field, what in wrong.items()],
    )


def _number(form: Form, name: str) -> int | None:
    """A whole number as typed; empty lifts the limit, and what is no number is noted."""
    typed = form.words(name)
    if typed and not (typed.isascii() and typed.isdecimal() and len(typed) < 10):
        form.problems.setdefault(
            name, f"must be a whole number from 1, or empty for no limit; {typed[:20]!r} is not"
        )
        return None
    return int(typed) if typed else None


def _rate(form: Form) -> float | None:
    """Starts a second, from a number and its unit."""
    typed, per = form.words("rate"), form.choice("per", list(UNITS), "m")
    if not typed or per not in UNITS:
        return None
    try:
        return parse_rate(f"{typed}/{per}")
    except ValueError:
        form.problems.setdefault(
            "rate",
            f"must be a number from 1 a day to 10000 a second, or empty for no limit; {typed[:20]!r} is not",
        )
        return None
