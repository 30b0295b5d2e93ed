"""Running many failed jobs again with some of their arguments replaced."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.errors import Invalid, UnknownJob
from worker.joblogs import actions
from worker.joblogs.enqueue import Reception
from worker.joblogs.models import JobLog
from worker.jobs import secret


async def changed_args(session: AsyncSession, job: JobLog, changes: dict[str, Any]) -> dict[str, Any]:
    """The job's arguments with `changes` laid over them, as they fit its signature.

    Raises:
        UnknownJob: no worker offers it.
        Invalid: naming each argument that does not fit. A secret may not be among the changes: whoever plans them
            keeps them until they are carried out, and nothing may keep a secret in the clear.
    """
    reception: Reception = session.sync_session.info["reception"]
    offer = await reception.offers.get(session, job.job_name)
    if offer is None:
        raise UnknownJob(job.job_name)
    hidden = set(secret.names(offer.fields)) & set(changes)
    if hidden:
        raise Invalid(dict.fromkeys(sorted(hidden), "is secret: replace it in one job after the other"))
    wanted = secret.keep(offer.fields, {**job.args, **changes}, job.args)
    offer.validate(wanted)
    return wanted


async def rerun_changed(session: AsyncSession, job: JobLog, changes: dict[str, Any], actor: Actor) -> JobLog:
    """A new job that names this one as its origin, without an audit entry of its own."""
    wanted = await changed_args(session, job, changes)
    return await actions.enqueue(
        session,
        job.job_name,
        wanted,
        queue=job.queue,
        priority=job.priority,
        max_retries=job.max_retries,
        timeout_s=job.timeout_s,
        tags=tuple(job.tags),
        rerun_of=job.id,
        user=actor.name,
    )
