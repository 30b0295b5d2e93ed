"""What a person knows of an effect in doubt: it happened, or it did not."""

from __future__ import annotations

from uuid import UUID

from litestar import post

from webapp.auth import actor, operator
from webapp.forms import read_form
from webapp.pages.after import show_job
from webapp.pages.shared import Answer, AnyRequest, acting, gone
from worker.errors import NotAllowedNow, NotFound
from worker.joblogs import effects

SAID = {
    True: "It counts as done: the next attempt passes over it.",
    False: "Its mark is taken away: the next attempt does it.",
}


@post("/job-logs/{job_id:uuid}/effects/happened", guards=[operator])
async def happened(request: AnyRequest, job_id: UUID) -> Answer:
    return await _settle(request, job_id, happened=True)


@post("/job-logs/{job_id:uuid}/effects/did-not-happen", guards=[operator])
async def did_not_happen(request: AnyRequest, job_id: UUID) -> Answer:
    return await _settle(request, job_id, happened=False)


routes = [happened, did_not_happen]


async def _settle(request: AnyRequest, job_id: UUID, *, happened: bool) -> Answer:
    key = (await read_form(request)).text("key")
    try:
        async with acting(request) as session:
            await effects.settle(session, job_id, key, happened=happened, actor=actor(request))
    except NotFound as error:
        if error.facts["noun"] == "job":
            return gone(request, "job log", "/job-logs")
        return await show_job(request, job_id, "Nothing of that name is in doubt any more.", kind="error")
    except NotAllowedNow:
        return await show_job(request, job_id, "It runs now: wait for how it ends.", kind="error")
    return await show_job(request, job_id, SAID[happened])
