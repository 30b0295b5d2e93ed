"""/api/v1/jobs: run, follow, retry, cancel, edit and delete jobs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from litestar import Request, Response, delete, get, patch, post
from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from webapp.api import examples, strict
from webapp.api.openapi import documented
from webapp.api.schema import (
    Attempt,
    Cancelled,
    Job,
    JobEdit,
    JobPage,
    JobQuery,
    JobRequest,
    LogLine,
    LogPage,
    LogQuery,
    RetryRequest,
    instant,
)
from webapp.auth import actor, operator, viewer
from webapp.queries.job_logs import list_jobs, one_job
from webapp.queries.one_job import attempts_of, log_lines
from webapp.queries.results import short_results
from webapp.queries.views import JobView
from worker.db.base import utc_now
from worker.db.session import Database
from worker.errors import Invalid, NotFound
from worker.joblogs import actions, search
from worker.joblogs.idempotency import claim_key, settle_key
from worker.joblogs.search import JobFilter

AnyRequest = Request[Any, Any, Any]


@get(
    "/jobs",
    guards=[viewer],
    opt={"repeatable": ("status",)},
    operation_class=documented(query=JobQuery, answer={"items": [examples.JOB], "next_cursor": None}),
    summary="List jobs",
)
async def list_job_logs(request: AnyRequest) -> JobPage:
    """Newest first. Follow `next_cursor` until it is null."""
    asked = strict.query(request, JobQuery)
    wanted = job_filter(asked.q, asked.status, asked.job_name, asked.queue)
    async with database(request).read() as connection:
        page = await list_jobs(connection, wanted, asked.sort, asked.cursor, asked.limit)
        results = await short_results(connection, [job.job_id for job in page.items])
    items = [Job.of(replace(job, result=results.get(job.job_id))) for job in page.items]
    return JobPage(items, page.next, instant(page.searched_back_to))


@post(
    "/jobs",
    guards=[operator],
    status_code=202,
    operation_class=documented(
        body=JobRequest,
        example=examples.JOB_REQUEST,
        answer=examples.QUEUED_JOB,
        headers={
            "Idempotency-Key": "1 to 255 characters: a repeated request with it gets the first one's job"
        },
        also={200: "The job exists already: the key was used before, or a live job holds the unique key"},
        problems=(404, 429),
    ),
    summary="Run a job",
)
async def run_job(request: AnyRequest) -> Response[Job]:
    """Accepts a job: it is in the database when this answers. `duplicate` marks the holder of a unique key."""
    wish = await strict.body(request, JobRequest)
    key = strict.header(request, "Idempotency-Key", longest=255)
    async with database(request).transaction() as session:
        accepted = await _accept(session, request, wish, key)
    job = await whole_job(request, accepted.job_id, duplicate=accepted.duplicate)
    return Response(job, status_code=202 if accepted.new else 200)


@get(
    "/jobs/{job_id:uuid}",
    guards=[viewer],
    operation_class=documented(answer=examples.WHOLE_JOB, problems=(404,)),
    summary="Read a job",
)
async def read_job(request: AnyRequest, job_id: UUID) -> Job:
    """Everything that is known of one job, with its attempts."""
    return await whole_job(request, job_id)


@patch(
    "/jobs/{job_id:uuid}",
    guards=[operator],
    operation_class=documented(
        body=JobEdit,
        example={"priority": 1, "note": "asked for by Ada"},
        answer=examples.WHOLE_JOB,
        problems=(404, 409),
    ),
    summary="Edit a job",
)
async def edit_job(request: AnyRequest, job_id: UUID) -> Job:
    """`args`, `priority` and `run_at` change until the job starts; `note`, `tags` and `resolved` always."""
    wish = await strict.body(request, JobEdit)
    changes = {
        name: getattr(wish, name) for name in wish.__struct_fields__ if getattr(wish, name) is not UNSET
    }
    async with database(request).transaction() as session:
        await actions.edit(session, job_id, actor=actor(request), **changes)
    return await whole_job(request, job_id)


@delete(
    "/jobs/{job_id:uuid}",
    guards=[operator],
    operation_class=documented(answer=None, problems=(404, 409)),
    summary="Delete a job",
)
async def delete_job(request: AnyRequest, job_id: UUID) -> None:
    """Takes an ended job out of all lists."""
    async with database(request).transaction() as session:
        await actions.delete(session, job_id, actor=actor(request))


@post(
    "/jobs/{job_id:uuid}/cancel",
    guards=[operator],
    status_code=200,
    operation_class=documented(answer=examples.CANCELLED, problems=(404, 409)),
    summary="Cancel a job",
)
async def cancel_job(request: AnyRequest, job_id: UUID) -> Cancelled:
    """A waiting job is cancelled at once; a running one is asked to stop."""
    async with database(request).transaction() as session:
        outcome = await actions.cancel(session, job_id, actor=actor(request))
        job = await actions.one(session, job_id)
        return Cancelled(str(job_id), job.status, outcome)  # type: ignore[arg-type]  # the table's own check constraint


@post(
    "/jobs/{job_id:uuid}/retry",
    guards=[operator],
    status_code=200,
    operation_class=documented(
        body=RetryRequest,
        example={"args": {"to": "ada@example.com"}},
        optional_body=True,
        answer=examples.QUEUED_JOB,
        also={201: "With `args`: the new job"},
        problems=(404, 409, 429),
    ),
    summary="Retry a job",
)
async def retry_job(request: AnyRequest, job_id: UUID) -> Response[Job]:
    """Queues a failed or cancelled job again under its id; with `args` runs a new one with these arguments."""
    wish = await strict.body(request, RetryRequest, optional=True)
    async with database(request).transaction() as session:
        if wish.args is UNSET:
            job = await actions.retry(session, job_id, actor=actor(request))
        else:
            job = await actions.rerun(session, job_id, actor=actor(request), args=wish.args)
    return Response(await whole_job(request, job.id), status_code=200 if job.id == job_id else 201)


@get(
    "/jobs/{job_id:uuid}/logs",
    guards=[viewer],
    operation_class=documented(
        query=LogQuery, answer={"items": [examples.LOG_LINE], "next_cursor": None}, problems=(404,)
    ),
    summary="Read a job's log",
)
async def read_logs(request: AnyRequest, job_id: UUID) -> LogPage:
    """What the job logged over all its attempts, oldest first."""
    asked = strict.query(request, LogQuery)
    after = None
    if asked.cursor is not None:
        epoch, seq = asked.cursor.split("-")
        after = int(epoch), int(seq)
    async with database(request).read() as connection:
        await _existing(connection, job_id)
        lines = await log_lines(connection, job_id, after=after, limit=asked.limit + 1)
    page, more = lines[: asked.limit], len(lines) > asked.limit
    return LogPage([LogLine.of(line) for line in page], page[-1].key if more else None)


routes = [list_job_logs, run_job, read_job, edit_job, delete_job, cancel_job, retry_job, read_logs]


def database(request: AnyRequest) -> Database:
    found: Database = request.app.state.engine.database
    return found


def job_filter(q: str | None, status: list[Any], job_name: str | None, queue: str | None) -> JobFilter:
    """The search `q`, narrowed by the other parameters. Raises Invalid naming what `q` got wrong."""
    found = search.parse(q or "", utc_now())
    if found.problems:
        raise Invalid({"q": "; ".join(found.problems)})
    return replace(
        found,
        statuses=tuple(status) or found.statuses,
        jobs=(job_name,) if job_name else found.jobs,
        queues=(queue,) if queue else found.queues,
    )


async def whole_job(request: AnyRequest, job_id: UUID, *, duplicate: bool = False) -> Job:
    """The job as it stands now, alone and with its attempts. Raises NotFound."""
    async with database(request).read() as connection:
        view = await _existing(connection, job_id)
        attempts = [Attempt.of(attempt) for attempt in reversed(await attempts_of(connection, view))]
    return Job.of(view, attempts=attempts, duplicate=duplicate or UNSET)


@dataclass(frozen=True, slots=True)
class _Accepted:
    job_id: UUID
    new: bool = True
    duplicate: bool = False


async def _accept(session: AsyncSession, request: AnyRequest, wish: JobRequest, key: str | None) -> _Accepted:
    user = str(request.user.id)
    if key is not None:
        body_hash = hashlib.sha256(await request.body()).hexdigest()
        if (first := await claim_key(session, key, user, body_hash)) is not None:
            return _Accepted(first, new=False)
    job = await actions.enqueue(
        session,
        wish.job_name,
        {} if wish.args is UNSET else wish.args,
        queue=wish.queue,
        priority=wish.priority,
        run_at=wish.run_at,
        unique_key=wish.unique_key,
        max_retries=wish.max_retries,
        timeout_s=wish.timeout_s,
        tags=wish.tags,
        actor=actor(request),
    )
    if key is not None:
        await settle_key(session, key, user, job.id)
    held = actions.duplicate(job)
    return _Accepted(job.id, new=not held, duplicate=held)


async def _existing(connection: AsyncConnection, job_id: UUID) -> JobView:
    view = await one_job(connection, job_id)
    if view is None or view.deleted_at is not None:
        raise NotFound(noun="job", key=str(job_id))
    return view
