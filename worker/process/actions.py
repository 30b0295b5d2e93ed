"""What people ask of a running worker: to drain, or to start anew. It reads the wish with its next beat."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.session import changed
from worker.errors import Invalid, NotFound, WorkerLeaving
from worker.process.models import Worker

Wish = Literal["drain", "restart"]
WISHES: Final[Mapping[Wish, str]] = MappingProxyType(
    {
        "drain": "It takes nothing new and ends when its jobs have. No other takes its place until the m worker that started it gets SIGHUP or is started anew.",
        "restart": "Another takes its place; it ends when its jobs have.",
    }
)
"""What becomes of a worker that is asked for this."""
PID_DIGITS: Final = 9
"""More than any system's pids have, and few enough for the column."""
LEAVING: Final = MappingProxyType(
    {
        "drain": "it was asked to drain",
        "restart": "it was asked to restart",
        None: "it takes nothing new any more",
    }
)


async def ask(session: AsyncSession, worker_id: UUID, wish: Wish, *, actor: Actor) -> Worker:
    """Asks a worker process for this. Asking twice is harmless.

    Raises:
        NotFound: no live process has this id.
        Invalid: it is a clerk, or runs inside the web process.
        WorkerLeaving: it was asked for something else before, or is stopping already.
    """
    alive = sa.select(Worker).where(Worker.id == worker_id, Worker.ended_at.is_(None))
    worker = await session.scalar(alive.with_for_update())
    if worker is None:
        raise NotFound(noun="worker", key=str(worker_id))
    if worker.kind != "worker":
        what = "a clerk" if worker.kind == "clerk" else "part of the web process"
        raise Invalid({"worker_id": f"{worker.host}:{worker.pid} is {what}; only workers {wish}"})
    if worker.wish == wish:
        return worker
    if worker.wish or worker.stopping_at is not None:
        raise WorkerLeaving(key=f"{worker.host}:{worker.pid}", why=LEAVING[worker.wish])
    before, worker.wish, worker.rev = worker.wish, wish, worker.rev + 1
    changed(session, "worker", worker.id, worker.rev)
    await audit(
        session, actor, f"worker.{wish}", "worker", worker.id, before={"wish": before}, after={"wish": wish}
    )
    return worker


async def find(session: AsyncSession, text: str) -> UUID:
    """The live worker that a person means by its id or by `host:pid`.

    Raises:
        NotFound: none is meant.
        Invalid: several are: hosts that share a name, or one that died a moment ago and its successor.
    """
    host, _, pid = text.rpartition(":")
    if host and pid.isascii() and pid.isdecimal() and len(pid) <= PID_DIGITS:
        meant = sa.and_(Worker.host == host, Worker.pid == int(pid))
    else:
        try:
            meant = Worker.id == UUID(text)
        except ValueError:
            raise NotFound(noun="worker", key=text) from None
    found = (await session.scalars(sa.select(Worker.id).where(Worker.ended_at.is_(None), meant))).all()
    if not found:
        raise NotFound(noun="worker", key=text)
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise Invalid({"worker": f"{text} may be any of {len(found)} processes; name one by its id: {ids}"})
    return found[0]
