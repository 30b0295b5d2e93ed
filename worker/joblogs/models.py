"""Tables of one job's life: the request, its attempts, what it logged, and the counts over all of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base, new_id

LIVE = ("scheduled", "queued", "running", "retrying")
TERMINAL = ("success", "failed", "cancelled")
SCHEDULED_LIVE = "scheduled_job_id IS NOT NULL AND status IN ('scheduled','queued','running','retrying')"
"""The jobs of schedules that have not ended: what an overlap is."""


class JobLog(Base):
    """One request to run a job, with its whole life. The row is the truth; its id is the job id."""

    __tablename__ = "job_logs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_name: Mapped[str] = mapped_column(sa.String(200))
    queue: Mapped[str] = mapped_column(sa.String(63))
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=5)
    status: Mapped[str] = mapped_column(sa.String(10))
    reason: Mapped[str | None] = mapped_column(sa.String(40))

    args: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[Any | None] = mapped_column(JSON)
    error: Mapped[str | None] = mapped_column(sa.Text)
    traceback: Mapped[str | None] = mapped_column(sa.Text)
    error_fingerprint: Mapped[str | None] = mapped_column(sa.String(32))

    enqueued_at: Mapped[datetime]
    run_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(default=0)
    max_retries: Mapped[int] = mapped_column(default=3)
    timeout_s: Mapped[float] = mapped_column(default=300.0)
    epoch: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)
    worker_id: Mapped[UUID | None]
    lost_count: Mapped[int] = mapped_column(default=0)
    died_alone: Mapped[int] = mapped_column(default=0)
    """Of the losses: how often a process that ran nothing else died under it. Only these convict it as poison."""
    lane: Mapped[str] = mapped_column(sa.String(6), default="normal")
    """`rescue` after a loss, `alone` once it must run in a child of its own, else `normal`."""

    progress: Mapped[float | None]
    progress_note: Mapped[str | None] = mapped_column(sa.String(500))
    checkpoint: Mapped[Any | None] = mapped_column(JSON)
    cancel_requested_at: Mapped[datetime | None]

    user_id: Mapped[str | None] = mapped_column(sa.String(200))
    scheduled_job_id: Mapped[UUID | None]
    rerun_of: Mapped[UUID | None]
    unique_key: Mapped[str | None] = mapped_column(sa.String(200))
    correlation_id: Mapped[str | None] = mapped_column(sa.String(200))
    caused_by: Mapped[str | None] = mapped_column(sa.String(200))

    tags: Mapped[list[Any]] = mapped_column(JSON, default=list)
    note: Mapped[str | None] = mapped_column(sa.Text)
    resolved_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        sa.CheckConstraint(
            "status IN ('scheduled','queued','running','retrying','success','failed','cancelled')", "status"
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", "priority"),
        sa.Index("ix_job_logs_status_id", "status", "id"),
        sa.Index("ix_job_logs_name_id", "job_name", "id"),
        sa.Index("ix_job_logs_name_status_id", "job_name", "status", "id"),
        sa.Index("ix_job_logs_queue_id", "queue", "id"),
        sa.Index("ix_job_logs_queue_status_id", "queue", "status", "id"),
        sa.Index("ix_job_logs_completed", "completed_at"),
        # A partial index that also begins with its constants wins over (status, id) without statistics; SQLite has none
        # at first. Statements name these constants as literals: a bound parameter hides them from the planner.
        sa.Index(
            "ix_job_logs_waiting",
            "status",
            "queue",
            "priority",
            "run_at",
            postgresql_where=sa.text("status = 'queued'"),
            sqlite_where=sa.text("status = 'queued'"),
        ),
        sa.Index(
            "ix_job_logs_due",
            "run_at",
            postgresql_where=sa.text("status IN ('scheduled','retrying')"),
            sqlite_where=sa.text("status IN ('scheduled','retrying')"),
        ),
        sa.Index(
            "ix_job_logs_running",
            "worker_id",
            postgresql_where=sa.text("status = 'running'"),
            sqlite_where=sa.text("status = 'running'"),
        ),
        sa.Index(
            "ix_job_logs_rescued",
            "status",
            "queue",
            "priority",
            "run_at",
            postgresql_where=sa.text("status = 'queued' AND lane != 'normal'"),
            sqlite_where=sa.text("status = 'queued' AND lane != 'normal'"),
        ),
        sa.Index(
            "ix_job_logs_unresolved",
            "status",
            "resolved_at",
            "deleted_at",
            "error_fingerprint",
            "completed_at",
            postgresql_where=sa.text("status = 'failed' AND resolved_at IS NULL AND deleted_at IS NULL"),
            sqlite_where=sa.text("status = 'failed' AND resolved_at IS NULL AND deleted_at IS NULL"),
        ),
        sa.Index(
            "ix_job_logs_fingerprint",
            "error_fingerprint",
            "id",
            postgresql_where=sa.text("error_fingerprint IS NOT NULL"),
            sqlite_where=sa.text("error_fingerprint IS NOT NULL"),
        ),
        sa.Index(
            "ix_job_logs_failed",
            "status",
            "completed_at",
            "deleted_at",
            "job_name",
            postgresql_where=sa.text("status = 'failed'"),
            sqlite_where=sa.text("status = 'failed'"),
        ),
        sa.Index(
            "ix_job_logs_cancelled",
            "status",
            "completed_at",
            postgresql_where=sa.text("status = 'cancelled'"),
            sqlite_where=sa.text("status = 'cancelled'"),
        ),
        sa.Index(
            "ix_job_logs_with_error",
            "id",
            postgresql_where=sa.text("error IS NOT NULL"),
            sqlite_where=sa.text("error IS NOT NULL"),
        ),
        sa.Index(
            "ix_job_logs_rerun_of",
            "rerun_of",
            postgresql_where=sa.text("rerun_of IS NOT NULL"),
            sqlite_where=sa.text("rerun_of IS NOT NULL"),
        ),
        sa.Index(
            "ix_job_logs_correlation",
            "correlation_id",
            postgresql_where=sa.text("correlation_id IS NOT NULL"),
            sqlite_where=sa.text("correlation_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_job_logs_scheduled",
            "scheduled_job_id",
            "id",
            postgresql_where=sa.text("scheduled_job_id IS NOT NULL"),
            sqlite_where=sa.text("scheduled_job_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_job_logs_scheduled_live",
            "scheduled_job_id",
            postgresql_where=sa.text(SCHEDULED_LIVE),
            sqlite_where=sa.text(SCHEDULED_LIVE),
        ),
        sa.Index(
            "uq_job_logs_unique_key",
            "unique_key",
            unique=True,
            postgresql_where=sa.text("status IN ('scheduled','queued','running','retrying')"),
            sqlite_where=sa.text("status IN ('scheduled','queued','running','retrying')"),
        ),
    )


class JobAttempt(Base):
    """One execution that did not simply succeed: failed, retrying, lost, released, timeout or cancelled."""

    __tablename__ = "job_attempts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("job_logs.id", ondelete="CASCADE"), index=True)
    epoch: Mapped[int] = mapped_column(sa.BigInteger)
    attempt: Mapped[int]
    outcome: Mapped[str] = mapped_column(sa.String(12))
    reason: Mapped[str | None] = mapped_column(sa.String(40))
    worker_id: Mapped[UUID | None]
    run_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime]
    error: Mapped[str | None] = mapped_column(sa.Text)
    traceback: Mapped[str | None] = mapped_column(sa.Text)
    retry_at: Mapped[datetime | None]

    __table_args__ = (sa.UniqueConstraint("job_id", "epoch", "outcome"),)


class JobLogLine(Base):
    """One line a job logged. `seq` orders the lines of one job over all its attempts."""

    __tablename__ = "job_log_lines"

    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("job_logs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    level: Mapped[str] = mapped_column(sa.String(10))
    logger: Mapped[str | None] = mapped_column(sa.String(200))
    message: Mapped[str] = mapped_column(sa.Text)


class JobCounter(Base):
    """How many jobs stand in a status; the truth is this plus every JobCounterDelta not folded in yet."""

    __tablename__ = "job_counters"

    job_name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    queue: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    status: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    n: Mapped[int] = mapped_column(sa.BigInteger, default=0)


class JobCounterDelta(Base):
    """A change of the counts, inserted with the transition: transitions never update a shared row."""

    __tablename__ = "job_counter_deltas"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_name: Mapped[str] = mapped_column(sa.String(200))
    queue: Mapped[str] = mapped_column(sa.String(63))
    status: Mapped[str] = mapped_column(sa.String(10))
    delta: Mapped[int]


class Effect(Base):
    """A key that `ctx.once` spent: committed with the block's writes, or marked as started before them."""

    __tablename__ = "job_effects"

    job_id: Mapped[UUID] = mapped_column(sa.ForeignKey("job_logs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    state: Mapped[str] = mapped_column(sa.String(8))
    """`started` (in doubt after a crash) or `done`."""
    value: Mapped[Any | None] = mapped_column(JSON)
    """What the effect gave, for the attempts after it: a charge's number, a child job's id."""
    epoch: Mapped[int] = mapped_column(sa.BigInteger)
    at: Mapped[datetime]


class Operation(Base):
    """A bulk action over many job logs, carried out in the background and reported row by row."""

    __tablename__ = "job_operations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    action: Mapped[str] = mapped_column(sa.String(20))
    filter: Mapped[dict[str, Any]] = mapped_column(JSON)
    cutoff: Mapped[datetime]
    status: Mapped[str] = mapped_column(sa.String(10), default="pending")
    total: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    cursor: Mapped[UUID | None]
    refusals: Mapped[list[Any]] = mapped_column(JSON, default=list)
    user_id: Mapped[str | None] = mapped_column(sa.String(200))
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(default=False)
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)


class IdempotencyKey(Base):
    """What a client's Idempotency-Key led to, so that a repeated request gets the same answer."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    body_hash: Mapped[str] = mapped_column(sa.String(64))
    job_id: Mapped[UUID]
    created_at: Mapped[datetime]
