"""A process's own row in the table of workers: entered at its start, kept alive by whoever beats, ended once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from worker.db.session import Database, changed
from worker.jobs.registry import Registry
from worker.process.identity import identify
from worker.process.models import Worker

SETTLED_AFTER = timedelta(minutes=10)


def has_settled(started_at: datetime, now: datetime) -> bool:
    """Whether a worker has lived long enough for what no worker offers to count as gone: others may still be starting."""
    return now - started_at >= SETTLED_AFTER


@dataclass(frozen=True, slots=True)
class Beat:
    """What one beat says of one process. `held` is [[job id, epoch], …]."""

    worker_id: UUID
    beat: int
    held: list[Any]
    busy: int
    memory_mb: float | None
    held_age_s: float = 0.0
    """How long ago the process said what it holds; older than the beat when its loop is blocked."""


async def enter(
    database: Database,
    worker_id: UUID,
    kind: str,
    *,
    supervisor_id: UUID | None = None,
    registry: Registry | None = None,
    schedules: Sequence[Mapping[str, Any]] = (),
    queues: Sequence[str] = (),
    priorities: str = "0-9",
    slots: int = 0,
    max_memory_mb: float | None = None,
    max_jobs: int | None = None,
) -> None:
    """Writes the row of this process's start."""
    me = identify()
    async with database.transaction() as session:
        now = await database.now(session)
        session.add(
            Worker(
                id=worker_id, supervisor_id=supervisor_id, kind=kind, host=me.host, pid=me.pid, boot_id=me.boot_id,
                process_started=me.process_started, version=_version(), queues=list(queues),
                jobs=registry.names() if registry else [], modules=list(registry.modules) if registry else [],
                schedules=[dict(one) for one in schedules], priorities=priorities, slots=slots, beat_at=now, started_at=now,
                max_memory_mb=max_memory_mb, max_jobs=max_jobs,
            )
        )  # fmt: skip
        changed(session, "worker", worker_id, 1)


async def beat(database: Database, beats: Sequence[Beat]) -> dict[UUID, str]:
    """One statement for all processes of a host. Answers who is to go and why: `ended`, `drain` or `restart`."""
    if not beats:
        return {}
    statement = (
        sa.update(Worker)
        .where(Worker.id == sa.bindparam("b_id"), Worker.ended_at.is_(None))
        .values(
            beat=sa.bindparam("b_beat"),
            beat_at=sa.bindparam("b_now"),
            held=sa.bindparam("b_held", type_=Worker.__table__.c.held.type),
            held_at=sa.bindparam("b_held_at", type_=Worker.__table__.c.held_at.type),
            busy=sa.bindparam("b_busy"),
            memory_mb=sa.bindparam("b_memory"),
            rev=Worker.rev + 1,
        )
    )
    async with database.transaction() as session:
        now = await database.now(session)
        values = [
            {
                "b_id": b.worker_id,
                "b_beat": b.beat,
                "b_now": now,
                "b_held": b.held,
                "b_held_at": now - timedelta(seconds=b.held_age_s),
                "b_busy": b.busy,
                "b_memory": b.memory_mb,
            }
            for b in beats
        ]
        await (await session.connection()).execute(statement, values)
        rows = await session.execute(
            sa.select(Worker.id, Worker.ended_at, Worker.wish, Worker.rev).where(
                Worker.id.in_([b.worker_id for b in beats])
            )
        )
        wishes: dict[UUID, str] = {}
        for worker_id, ended_at, wish, rev in rows:
            changed(session, "worker", worker_id, rev)
            if ended_at is not None or wish:
                wishes[worker_id] = "ended" if ended_at is not None else wish
        return wishes


async def wish_of(database: Database, worker_id: UUID) -> str | None:
    """What operators asked of it, also if it has ended."""
    async with database.read() as connection:
        return await connection.scalar(sa.select(Worker.wish).where(Worker.id == worker_id))


async def serve_queues(database: Database, worker_id: UUID, queues: Sequence[str]) -> None:
    """Writes which queues the process takes from now on."""
    async with database.transaction() as session:
        rev = await session.scalar(
            sa.update(Worker)
            .where(Worker.id == worker_id)
            .values(queues=list(queues), rev=Worker.rev + 1)
            .returning(Worker.rev)
            .execution_options(synchronize_session=False)
        )
        if rev is not None:
            changed(session, "worker", worker_id, rev)


async def stopping(database: Database, worker_id: UUID) -> None:
    """Notes that the process takes nothing new."""
    async with database.transaction() as session:
        rev = await session.scalar(
            sa.update(Worker)
            .where(Worker.id == worker_id, Worker.stopping_at.is_(None))
            .values(stopping_at=await database.now(session), rev=Worker.rev + 1)
            .returning(Worker.rev)
            .execution_options(synchronize_session=False)
        )
        if rev is not None:
            changed(session, "worker", worker_id, rev)


def _version() -> str:
    try:
        return metadata.version("m-desk")
    except metadata.PackageNotFoundError:
        return ""
