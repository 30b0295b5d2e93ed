"""Bulk actions: previewed, started with a cutoff, carried out by a clerk in small transactions, stopped at any time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import utc_now
from worker.db.session import Database, changed
from worker.errors import Invalid, KeyBusy, KeyHeld, NotAllowedNow, NotFound, QueueFull, TooLate
from worker.joblogs import actions
from worker.joblogs.conditions import conditions
from worker.joblogs.models import LIVE, TERMINAL, JobLog, Operation
from worker.joblogs.reruns import changed_args, rerun_changed
from worker.joblogs.search import parse

BATCH = 100
REFUSALS_KEPT = 100
COUNT_CAP = 10_001
IDS_CAP = 1000
LATE_AFTER = timedelta(minutes=5)

Apply = Callable[[AsyncSession, JobLog, Actor], Awaitable[object]]

UNRESOLVED: Final = sa.and_(JobLog.status == "failed", JobLog.resolved_at.is_(None))
RERUN: Final = "rerun"
ACTIONS: Final[dict[str, tuple[Apply, sa.ColumnElement[bool]]]] = {
    "retry": (actions.retry_locked, JobLog.status.in_(("failed", "cancelled"))),
    "cancel": (actions.cancel_locked, JobLog.status.in_(LIVE)),
    "delete": (actions.delete_locked, JobLog.status.in_(TERMINAL)),
    "resolve": (actions.resolve_locked, UNRESOLVED),
    RERUN: (actions.resolve_locked, UNRESOLVED),
}
"""What can be done in bulk: the button, and the condition under which a row can take it. A rerun first starts a new job,
with those arguments replaced that the filter's `args` names, and then resolves the failed one."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a bulk action would do; counts stop at `COUNT_CAP`."""

    action: str
    matching: int
    will: int
    later: int
    """Matching rows that came after the cutoff, and are left out."""
    cutoff: datetime


def check(action: str, wanted: dict[str, Any]) -> None:
    """Raises Invalid when the action or the filter (`{"q": search, "ids": [job id, …]}`, and `args` for a rerun) is not
    understood."""
    problems: dict[str, str] = {}
    if action not in ACTIONS:
        problems["action"] = f"{action!r} is not known: it must be one of {', '.join(ACTIONS)}"
    if unknown := set(wanted) - ({"q", "ids", "args"} if action == RERUN else {"q", "ids"}):
        problems["filter"] = (
            f"{', '.join(sorted(unknown))} is not known: it may hold q (a search) and ids (job ids)"
        )
    if not wanted.get("q") and not wanted.get("ids"):
        problems["filter"] = "it is empty: give q (a search) or ids (job ids)"
    if wrong := parse(str(wanted.get("q") or ""), utc_now()).problems:
        problems["filter.q"] = "; ".join(wrong)
    ids = wanted.get("ids") or []
    if len(ids) > IDS_CAP:
        problems["filter.ids"] = f"{len(ids)} ids are too many: at most {IDS_CAP}, or use a search"
    if bad := [str(i)[:40] for i in ids if not _is_id(i)]:
        problems["filter.ids"] = f"{bad[0]!r} is not a job id"
    if not isinstance(wanted.get("args") or {}, dict):
        problems["args"] = 'must be a JSON object of the arguments to replace, like {"to": "a@b.c"}'
    if problems:
        raise Invalid(problems)


async def check_rerun(session: AsyncSession, wanted: dict[str, Any]) -> None:
    """Raises Invalid when the newest matching job would not take these arguments, each mistake named.

    A secret is refused: the operation keeps what it was given, and nothing may keep a secret in the clear.
    """
    matching = _matching(wanted, _dialect(session), utc_now())
    job = await session.scalar(
        sa.select(JobLog).where(*matching, UNRESOLVED).order_by(JobLog.id.desc()).limit(1)
    )
    if job is not None:
        await changed_args(session, job, wanted.get("args") or {})


async def preview(
    connection: AsyncConnection, dialect: str, action: str, wanted: dict[str, Any], cutoff: datetime
) -> Preview:
    """Counts what would happen, without doing it."""
    check(action, wanted)
    matching = _matching(wanted, dialect, cutoff)
    able = ACTIONS[action][1]
    return Preview(
        action=action,
        matching=await _capped(connection, [*matching, JobLog.enqueued_at <= cutoff]),
        will=await _capped(connection, [*matching, JobLog.enqueued_at <= cutoff, able]),
        later=await _capped(connection, [*matching, JobLog.enqueued_at > cutoff]),
        cutoff=cutoff,
    )


async def start(
    session: AsyncSession,
    action: str,
    wanted: dict[str, Any],
    *,
    cutoff: datetime | None = None,
    reason: str = "",
    actor: Actor,
) -> Operation:
    """Plans the action for the clerk. Rows that came after `cutoff` (default: now) are left out. One audit entry."""
    check(action, wanted)
    if action == RERUN:
        await check_rerun(session, wanted)
    now = utc_now()
    operation = Operation(
        action=action,
        filter={
            "q": wanted.get("q") or "",
            "ids": [str(i) for i in wanted.get("ids") or []],
            "reason": reason,
            **({"args": wanted.get("args") or {}} if action == RERUN else {}),
        },
        cutoff=min(cutoff or now, now),
        status="pending",
        user_id=actor.name,
        created_at=now,
        rev=1,
        total=0,
        done=0,
        refused=0,
        refusals=[],
        stop_requested=False,
    )
    session.add(operation)
    await session.flush()
    changed(session, "operation", operation.id, 1)
    await audit(
        session, actor, f"job.bulk_{action}", "operation", operation.id, after={"filter": operation.filter}
    )
    return operation


async def stop(session: AsyncSession, operation_id: UUID, *, actor: Actor) -> Operation:
    """Ends an operation after the batch under way; what is done stays done.

    Raises:
        NotFound; NotAllowedNow: it has ended.
    """
    operation = await session.get(Operation, operation_id, with_for_update=True, populate_existing=True)
    if operation is None:
        raise NotFound(noun="operation", key=str(operation_id))
    if operation.ended_at is not None:
        raise NotAllowedNow(job_id=operation.id, status=operation.status, wish="stopped")
    operation.stop_requested, operation.rev = True, operation.rev + 1
    await session.flush()
    changed(session, "operation", operation.id, operation.rev)
    await audit(session, actor, "job.bulk_stop", "operation", operation.id)
    return operation


async def run_pending(database: Database) -> bool:
    """One batch of the oldest operation that nobody else works at; answers whether there was one."""
    if not await database.any(Operation, Operation.ended_at.is_(None)):
        return False
    async with database.transaction() as session:
        operation = await session.scalar(
            sa.select(Operation)
            .where(Operation.ended_at.is_(None))
            .order_by(Operation.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if operation is None:
            return False
        await _step(session, operation, database.dialect)
        operation.rev += 1
        await session.flush()
        changed(session, "operation", operation.id, operation.rev)
        return True


async def _step(session: AsyncSession, operation: Operation, dialect: str) -> None:
    if operation.stop_requested:
        operation.status, operation.ended_at = "stopped", utc_now()
        return
    matching = [
        *_matching(operation.filter, dialect, operation.cutoff),
        JobLog.enqueued_at <= operation.cutoff,
    ]
    if operation.status == "pending":
        operation.status = "running"
        operation.total = await _capped(session, matching)
    if operation.cursor is not None:
        matching.append(JobLog.id > operation.cursor)
    ids = (
        await session.scalars(sa.select(JobLog.id).where(*matching).order_by(JobLog.id).limit(BATCH))
    ).all()
    if not ids:
        operation.status, operation.ended_at = "done", utc_now()
        operation.total = operation.done + operation.refused
        return
    for job_id in ids:
        await _apply(session, operation, job_id)
    operation.cursor = ids[-1]


async def _apply(session: AsyncSession, operation: Operation, job_id: UUID) -> None:
    """One row: what cannot be done is counted with its reason, and does not stop the others."""
    actor = Actor(operation.user_id or "engine", via="engine")
    try:
        async with session.begin_nested():
            job = await actions.locked(session, job_id)
            if operation.action == RERUN:
                await _rerun(session, job, operation.filter.get("args") or {}, actor)
            await ACTIONS[operation.action][0](session, job, actor)
    except (NotAllowedNow, TooLate, KeyHeld, NotFound, Invalid, KeyBusy, QueueFull) as refusal:
        operation.refused += 1
        if len(operation.refusals) < REFUSALS_KEPT:
            operation.refusals = [*operation.refusals, {"job_id": str(job_id), "why": refusal.message}]
    else:
        operation.done += 1


async def _rerun(session: AsyncSession, job: JobLog, changes: dict[str, Any], actor: Actor) -> None:
    if job.status != "failed" or job.resolved_at is not None:
        raise NotAllowedNow(job_id=job.id, status=job.status, wish="run again")
    await rerun_changed(session, job, changes, actor)


def _dialect(session: AsyncSession) -> str:
    return session.get_bind().dialect.name


def _matching(wanted: dict[str, Any], dialect: str, now: datetime) -> list[sa.ColumnElement[bool]]:
    found = conditions(parse(str(wanted.get("q") or ""), now), dialect, now - LATE_AFTER)
    ids = [UUID(str(i)) for i in wanted.get("ids") or []]
    return [*found.indexed, *found.scanned, *([JobLog.id.in_(ids)] if ids else [])]


async def _capped(connection: AsyncConnection | AsyncSession, where: list[sa.ColumnElement[bool]]) -> int:
    some = sa.select(sa.literal(1)).select_from(JobLog).where(*where).limit(COUNT_CAP).subquery()
    return int((await connection.execute(sa.select(sa.func.count()).select_from(some))).scalar_one())


def _is_id(text: object) -> bool:
    try:
        UUID(str(text))
    except ValueError:
        return False
    return True
