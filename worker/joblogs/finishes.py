"""Finishing: outcomes written in batches, each fenced by its epoch and worker; the offender alone fails."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import as_stored, new_id
from worker.db.session import Database, Doorbell, changed, emit, ring
from worker.joblogs.claims import Claimed
from worker.joblogs.counters import Key, count, moved
from worker.joblogs.enqueue import event_data
from worker.joblogs.limits import ring_limited
from worker.joblogs.losses import POISON_AFTER, cut_off, lane_after
from worker.joblogs.models import JobAttempt
from worker.joblogs.states import EVENT_OF
from worker.joblogs.storable import MAX_TRACEBACK_CHARS, fingerprint, text_of
from worker.jobs.models import JobCatalogue

LEFT = "Its worker left before it had ended."

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """How one execution ended.

    `queued` puts a job back whose code had not begun. `released` and `lost` cut it off: its worker left, or a process of its
    own died. Where it goes then, unburnt, is for `losses.cut_off` to say.
    """

    claimed: Claimed
    status: Literal["success", "failed", "retrying", "cancelled", "queued", "released", "lost"]
    result: str | None = None
    """JSON text, as `storable.result_json` makes it."""
    error: str | None = None
    traceback: str | None = None
    reason: str | None = None
    retry_after_s: float | None = None
    tried: bool = False
    """Whether a write of it went unanswered: the row may show it already."""


# `:batch` is a JSON list of the objects that `_record` makes. A request to cancel turns every end but success into
# `cancelled`, here in the statement itself, so that no order of the two writes can lose it.
_SET = """
    status = CASE WHEN v.status <> 'success' AND job_logs.cancel_requested_at IS NOT NULL
                  THEN 'cancelled' ELSE v.status END,
    reason = CASE WHEN v.status <> 'success' AND job_logs.cancel_requested_at IS NOT NULL
                  THEN 'cancelled' ELSE v.reason END,
    completed_at = CASE WHEN v.status IN ('success', 'failed', 'cancelled')
                             OR job_logs.cancel_requested_at IS NOT NULL THEN {now} END,
    run_at = COALESCE({run_at}, job_logs.run_at),
    result = {result},
    error = v.error,
    traceback = v.traceback,
    error_fingerprint = v.fingerprint,
    epoch = job_logs.epoch + v.bump,
    attempt = job_logs.attempt - v.unburnt,
    lost_count = job_logs.lost_count + v.lost,
    died_alone = job_logs.died_alone + v.lost,
    lane = COALESCE(v.lane, job_logs.lane),
    rev = job_logs.rev + 1
"""
_WHERE = """
    job_logs.id = v.id AND job_logs.epoch = v.epoch AND job_logs.worker_id = :worker AND job_logs.status = 'running'
    RETURNING job_logs.id, job_logs.status, job_logs.rev
"""
_POSTGRESQL = sa.text(
    "".join(
        (
            """
            WITH v AS MATERIALIZED (
                SELECT * FROM jsonb_to_recordset(CAST(:batch AS jsonb)) AS r(
                    id uuid, epoch bigint, status text, reason text, result text, error text, traceback text,
                    fingerprint text, run_at timestamptz, bump int, unburnt int, lost int, lane text)
            ), locked AS MATERIALIZED (
                SELECT id FROM job_logs WHERE id IN (SELECT id FROM v) ORDER BY id FOR UPDATE
            )
            UPDATE job_logs SET """,
            _SET.format(now="CAST(:now AS timestamptz)", run_at="v.run_at", result="CAST(v.result AS jsonb)"),
            " FROM v JOIN locked ON locked.id = v.id WHERE ",
            _WHERE,
        )
    )
)
_SQLITE_FIELDS = (
    "id", "epoch", "status", "reason", "result", "error", "traceback", "fingerprint", "run_at", "bump", "unburnt",
    "lost", "lane",
)  # fmt: skip
_SQLITE = sa.text(
    "".join(
        (
            "UPDATE job_logs SET ",
            _SET.format(now=":now", run_at="v.run_at", result="v.result"),
            " FROM (SELECT ",
            ", ".join(f"value ->> '{name}' AS {name}" for name in _SQLITE_FIELDS),
            " FROM json_each(:batch)) AS v WHERE ",
            _WHERE,
        )
    )
)


async def write_outcomes(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
    """Writes one batch in one transaction; answers for each outcome whether it was still this worker's to end."""
    async with database.transaction() as session:
        now = await database.now(session)
        fragile = await _fragile(session, outcomes)
        records = [_record(outcome, fragile, now, database.dialect) for outcome in outcomes]
        values = {"batch": json.dumps(records, ensure_ascii=False)}
        if database.dialect == "sqlite":
            rows = await session.execute(
                _SQLITE, values | {"worker": worker_id.hex, "now": as_stored(now, "sqlite")}
            )
        else:
            rows = await session.execute(_POSTGRESQL, values | {"worker": worker_id, "now": now})
        ended = {UUID(str(row[0])): (str(row[1]), int(row[2])) for row in rows}
        await ring_limited(session, [_place(o.claimed) for o in outcomes if o.claimed.id in ended])
        told = [(o, *ended[o.claimed.id]) for o in outcomes if o.claimed.id in ended]
        _tell(session, worker_id, told, fragile, now)
    return [outcome.claimed.id in ended for outcome in outcomes]


def unstorable(outcome: Outcome, error: DBAPIError) -> Outcome:
    """How a job ends whose own end the database refuses."""
    cause = _words(error)
    log.error("result_unstorable", job_id=str(outcome.claimed.id), error=cause)
    text = f"Its end could not be stored: {cause}"
    return Outcome(outcome.claimed, "failed", error=text, reason="result_unstorable")


def _words(error: DBAPIError) -> str:
    """The driver's first line, without the class that SQLAlchemy puts before asyncpg's."""
    lines = str(error.orig).splitlines() or [type(error.orig).__name__]
    return re.sub(r"^<class '[^']*'>: ", "", lines[0])[:300]


def _place(job: Claimed) -> tuple[UUID, str, str]:
    return job.id, job.job_name, job.queue


async def _fragile(session: AsyncSession, outcomes: Sequence[Outcome]) -> set[str]:
    """The names of the jobs among those that were cut off that must not run again then."""
    names = {outcome.claimed.job_name for outcome in outcomes if outcome.status in ("released", "lost")}
    if not names:
        return set()
    wanted = sa.select(JobCatalogue.name).where(JobCatalogue.name.in_(names), JobCatalogue.on_lost == "fail")
    return set(await session.scalars(wanted))


def _record(outcome: Outcome, fragile: set[str], now: datetime, dialect: str) -> dict[str, Any]:
    """One outcome as the statement reads it."""
    job = outcome.claimed
    status, reason, lane = _resting_state(outcome, fragile)
    put_back = int(status == "queued")
    error = _error(outcome, status)
    trace = None if outcome.traceback is None else text_of(outcome.traceback, MAX_TRACEBACK_CHARS)
    again = (
        None
        if outcome.retry_after_s is None
        else as_stored(now + timedelta(seconds=outcome.retry_after_s), dialect)
    )
    return {
        "id": job.id.hex if dialect == "sqlite" else str(job.id),
        "epoch": job.epoch,
        "status": status,
        "reason": reason,
        "result": outcome.result,
        "error": error,
        "traceback": trace,
        "fingerprint": fingerprint(job.job_name, error or reason or "", trace)
        if status == "failed"
        else None,
        "run_at": again,
        "bump": put_back,
        "unburnt": put_back,
        "lost": int(outcome.status == "lost"),
        "lane": lane,
    }


def _resting_state(outcome: Outcome, fragile: set[str]) -> tuple[str, str | None, str | None]:
    """Status, reason and lane the row gets, were nobody to have asked to cancel it."""
    job = outcome.claimed
    if outcome.status == "released":
        status, why = cut_off(fragile=job.job_name in fragile)
        return status, why or outcome.reason, None
    if outcome.status == "lost":
        guilty = job.died_alone + 1 >= POISON_AFTER
        status, why = cut_off(fragile=job.job_name in fragile, guilty=guilty)
        return status, why, lane_after(job.lost_count + 1) if status == "queued" else None
    return outcome.status, outcome.reason, None


def _error(outcome: Outcome, status: str) -> str | None:
    if outcome.status == "released" and status == "failed":
        return LEFT
    return None if outcome.error is None else text_of(outcome.error)


def _tell(
    session: AsyncSession,
    worker_id: UUID,
    ended: Sequence[tuple[Outcome, str, int]],
    fragile: set[str],
    now: datetime,
) -> None:
    """Attempts, counts, events, revisions and rings of the rows that changed."""
    counts: Counter[Key] = Counter()
    for outcome, status, rev in ended:
        job = outcome.claimed
        job.status, job.rev = status, rev
        job.reason = "cancelled" if status == "cancelled" else _resting_state(outcome, fragile)[1]
        moved(counts, job, "running", status)
        if outcome.status == "lost":
            emit(session, "job.lost", event_data(job), job.user_id)
        emit(session, EVENT_OF[status], event_data(job), job.user_id)
        changed(session, "job", job.id, rev)
        if status == "queued":
            ring(session, [Doorbell(job.id, job.queue, job.priority, rescue=outcome.status == "lost")])
        if status != "success":
            session.add(_attempt(outcome, worker_id, status, now))
    count(session, counts)


def _attempt(outcome: Outcome, worker_id: UUID, status: str, now: datetime) -> JobAttempt:
    job = outcome.claimed
    retry_at = None
    if status == "retrying" and outcome.retry_after_s is not None:
        retry_at = now + timedelta(seconds=outcome.retry_after_s)
    words = {"queued": "lost" if outcome.status == "lost" else "released"}
    left = (outcome.status, status) == ("released", "failed")
    return JobAttempt(
        id=new_id(),
        job_id=job.id,
        epoch=job.epoch,
        attempt=job.attempt,
        outcome=words.get(status, status),
        reason="worker_lost" if left else outcome.reason,
        worker_id=worker_id,
        run_at=job.run_at,
        started_at=job.started_at,
        ended_at=now,
        error=_error(outcome, status),
        traceback=None if outcome.traceback is None else text_of(outcome.traceback, MAX_TRACEBACK_CHARS),
        retry_at=retry_at,
    )
