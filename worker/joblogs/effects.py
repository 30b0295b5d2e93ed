"""Effects in doubt: an execution died between its mark and its end, and only a person can say what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.session import changed, emit, now_of
from worker.errors import NotAllowedNow, NotFound
from worker.joblogs.actions import locked
from worker.joblogs.enqueue import event_data
from worker.joblogs.models import Effect, JobLog

MOST = 200


@dataclass(frozen=True, slots=True)
class EffectView:
    """A key that `ctx.once` spent. `started` and not `done`: while the job does not run, nobody knows whether it happened."""

    key: str
    state: str
    value: Any
    epoch: int
    at: datetime

    @property
    def in_doubt(self) -> bool:
        return self.state == "started"


async def effects_of(connection: AsyncConnection | AsyncSession, job_id: UUID) -> Sequence[EffectView]:
    """The newest keys of a job, those in doubt first."""
    statement = (
        sa.select(Effect.key, Effect.state, Effect.value, Effect.epoch, Effect.at)
        .where(Effect.job_id == job_id)
        .order_by(Effect.state.desc(), Effect.at.desc())
        .limit(MOST)
    )
    return [EffectView(*row) for row in await connection.execute(statement)]


async def settle(session: AsyncSession, job_id: UUID, key: str, *, happened: bool, actor: Actor) -> JobLog:
    """Ends a doubt: the effect counts as done, or its mark is taken away and the next attempt does it.

    Raises:
        NotFound: there is no such job, or it has no effect of this key in doubt.
        NotAllowedNow: it runs: what it does at this moment is no doubt yet.
    """
    job = await locked(session, job_id)
    if job.status == "running":
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="settled")
    effect = await session.get(Effect, (job_id, key), with_for_update=True, populate_existing=True)
    if effect is None or effect.state != "started":
        raise NotFound(noun="effect in doubt", key=key[:180])
    if happened:
        effect.state, effect.at = "done", await now_of(session)
    else:
        await session.delete(effect)
    job.rev += 1
    await session.flush()
    emit(session, "job.settled", event_data(job), actor.name)
    changed(session, "job", job.id, job.rev)
    said = {"effect": key, "happened": happened}
    await audit(
        session, actor, "job.settle", "job", job.id, before={"effect": key, "state": "started"}, after=said
    )
    return job
