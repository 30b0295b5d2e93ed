"""What an edit may change of a job, field by field, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import utc_now
from worker.db.session import now_of
from worker.errors import Invalid, NotAllowedNow, UnknownJob
from worker.joblogs import states
from worker.joblogs.enqueue import Reception, Request, problems_of
from worker.joblogs.models import JobLog
from worker.jobs import secret


class Unset:
    """A field that an edit leaves alone."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


async def before_start(
    session: AsyncSession,
    job: JobLog,
    args: dict[str, Any] | Unset,
    priority: int | Unset,
    run_at: datetime | Unset,
) -> dict[str, Any]:
    if not states.can_edit(job.status):
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="edited")
    given: dict[str, Any] = {}
    if not isinstance(priority, Unset):
        given["priority"] = priority
    if not isinstance(run_at, Unset):
        given["run_at"] = run_at
    if problems := problems_of(Request(job.job_name, {}, **given)):
        raise Invalid(problems)
    if not isinstance(args, Unset):
        reception: Reception = session.sync_session.info["reception"]
        offer = await reception.offers.get(session, job.job_name)
        if offer is None:
            raise UnknownJob(job.job_name)
        wanted = offer.validate(secret.keep(offer.fields, args, job.args))
        given["args"] = secret.seal(offer.fields, wanted, reception.settings.secret_key)
    if "run_at" in given and job.status in ("queued", "scheduled"):
        given["status"] = "scheduled" if given["run_at"] > await now_of(session) else "queued"
    return given


def at_any_time(
    job: JobLog, note: str | Unset | None, tags: Sequence[str] | Unset, resolved: bool | Unset
) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if not isinstance(note, Unset):
        given["note"] = note or None
    if not isinstance(tags, Unset):
        given["tags"] = list(tags)
    if problems := problems_of(Request(job.job_name, {}, note=given.get("note"), tags=given.get("tags", ()))):
        raise Invalid(problems)
    if not isinstance(resolved, Unset):
        given["resolved_at"] = utc_now() if resolved else None
    return given
