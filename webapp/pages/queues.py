"""Pausing and resuming a queue."""

from __future__ import annotations

from litestar import get, post

from webapp import render
from webapp.auth import actor, operator
from webapp.forms import read_form
from webapp.pages.after import came_from
from webapp.pages.shared import Answer, AnyRequest, acting, database, gone, late_after_s
from webapp.queries.queues import load_queues, queue_names
from worker.errors import Invalid
from worker.jobs import actions


@get("/queues/{name:str}/pause", guards=[operator])
async def pause_form(request: AnyRequest, name: str) -> Answer:
    async with database(request).read() as connection:
        if name not in await queue_names(connection):
            return gone(request, "queue", "/")
        queue = (await load_queues(connection, [name], late_after_s(request)))[name]
    return render.page(
        request,
        "overview/pause.html",
        title=f"Pause {name}",
        nav="overview",
        kind="queue",
        name=name,
        action=f"/queues/{name}/pause",
        back_href=came_from(request, "/"),
        waiting=queue.waiting,
        running=queue.running,
        limit_href=f"/queues/{name}/limit",
    )


@post("/queues/{name:str}/pause", guards=[operator])
async def pause(request: AnyRequest, name: str) -> Answer:
    reason = (await read_form(request)).words("reason")
    try:
        async with acting(request) as session:
            await actions.pause_queue(session, name, reason=reason, actor=actor(request))
    except Invalid as error:
        return render.redirect(request, "/", error.message, "error")
    return render.redirect(request, "/", f"Paused the queue {name}.", undo_url=f"/queues/{name}/resume")


@post("/queues/{name:str}/resume", guards=[operator])
async def resume(request: AnyRequest, name: str) -> Answer:
    try:
        async with acting(request) as session:
            await actions.resume_queue(session, name, actor=actor(request))
    except Invalid as error:
        return render.redirect(request, "/", error.message, "error")
    return await _show(request, name, f"Resumed the queue {name}.")


async def _show(request: AnyRequest, name: str, flash: str) -> Answer:
    """The queue's row as it stands now."""
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, "/"), flash)
    async with database(request).read() as connection:
        queues = await load_queues(connection, [name], late_after_s(request))
    return render.fragment(request, "overview/_after.html", flash=flash, queue=queues[name])


routes = [pause_form, pause, resume]
