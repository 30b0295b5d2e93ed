"""What an action answers: back to where the form stood, or the fresh fragments of its job for HTMX."""

from __future__ import annotations

from urllib.parse import urlsplit
from uuid import UUID

from webapp import render
from webapp.pages.shared import Answer, AnyRequest, database
from webapp.queries.job_logs import one_job
from webapp.queries.one_job import state_path
from webapp.security import peer


def came_from(request: AnyRequest, default: str) -> str:
    """The page of this desk that the form stood on."""
    url = request.headers.get("hx-current-url") or request.headers.get("referer") or ""
    parts = urlsplit(url) if url.isprintable() else urlsplit("")
    if parts.netloc.lower() != peer(request).host:
        return default
    return render.local_path(parts.path + (f"?{parts.query}" if parts.query else ""))


async def show_job(
    request: AnyRequest, job_id: UUID, flash: str, *, kind: str = "ok", undo_url: str | None = None
) -> Answer:
    """The job as it stands now, wherever the page shows it."""
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, f"/job-logs/{job_id}"), flash, kind, undo_url)
    async with database(request).read() as connection:
        job = await one_job(connection, job_id)
    if job is None:
        return render.redirect(request, "/job-logs", flash, kind, undo_url)
    return render.fragment(
        request,
        "job_logs/_after.html",
        flash=flash,
        kind=kind,
        undo_url=undo_url,
        job=job,
        path=state_path(job),
    )
