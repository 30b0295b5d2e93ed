"""Tables of schedules: what starts which job when, and what became of every instant that was due."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base, new_id
from worker.events.publishing import publishes
from worker.schedules.cron import Rule

NAME_LENGTH = 200


@publishes(
    "name", "function", "queue", "cron_expression", "time_zone", "enabled", "paused_at", "retired_at", "deleted_at",
    deleted="deleted_at",
)  # fmt: skip
class ScheduledJob(Base):
    """A stored schedule that creates JobLogs. `next_fire_at` is the first instant nobody has decided about yet."""

    __tablename__ = "scheduled_jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(sa.String(NAME_LENGTH))
    function: Mapped[str] = mapped_column(sa.String(200))
    args: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    queue: Mapped[str | None] = mapped_column(sa.String(63))
    priority: Mapped[int | None] = mapped_column(sa.SmallInteger)

    cron_expression: Mapped[str] = mapped_column(sa.String(200))
    time_zone: Mapped[str] = mapped_column(sa.String(64), default="UTC")
    anchor: Mapped[datetime]
    """What intervals count from."""
    start_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]
    jitter_s: Mapped[float] = mapped_column(default=0.0)
    missed: Mapped[str] = mapped_column(sa.String(6), default="latest")
    catch_up_s: Mapped[int] = mapped_column(default=86_400)
    overlap: Mapped[str] = mapped_column(sa.String(14), default="skip")

    enabled: Mapped[bool] = mapped_column(default=True)
    paused_at: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]
    """A pause without an end lasts until somebody resumes it."""
    paused_by: Mapped[str | None] = mapped_column(sa.String(200))
    pause_reason: Mapped[str | None] = mapped_column(sa.String(500))

    next_fire_at: Mapped[datetime | None]
    last_fire_at: Mapped[datetime | None]
    last_job_id: Mapped[UUID | None]

    module: Mapped[str | None] = mapped_column(sa.String(300))
    """The module whose code owns it, or None when people do."""
    code_key: Mapped[str | None] = mapped_column(sa.String(300))
    code_hash: Mapped[str | None] = mapped_column(sa.String(64))
    code_hashes: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Every version that was ever applied, oldest first: an older worker that starts late brings none of them back."""
    edited_at: Mapped[datetime | None]
    """When a person changed what code owns."""
    retired_at: Mapped[datetime | None]
    """When code stopped having it."""

    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(sa.String(200))
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    """Raised by every edit: whoever saves names the version they saw."""
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)

    __table_args__ = (
        sa.CheckConstraint("missed IN ('skip','latest','all')", "missed"),
        sa.CheckConstraint("overlap IN ('allow','skip','cancel_running')", "overlap"),
        sa.Index(
            "ix_scheduled_jobs_due",
            "next_fire_at",
            postgresql_where=sa.text("next_fire_at IS NOT NULL"),
            sqlite_where=sa.text("next_fire_at IS NOT NULL"),
        ),
        sa.Index(
            "uq_scheduled_jobs_name",
            "name",
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
            sqlite_where=sa.text("deleted_at IS NULL"),
        ),
        sa.Index(
            "uq_scheduled_jobs_code_key",
            "code_key",
            unique=True,
            postgresql_where=sa.text("code_key IS NOT NULL AND deleted_at IS NULL"),
            sqlite_where=sa.text("code_key IS NOT NULL AND deleted_at IS NULL"),
        ),
        sa.Index("ix_scheduled_jobs_function", "function"),
    )

    @property
    def rule(self) -> Rule:
        return rule_of(self)


def rule_of(row: Any) -> Rule:
    """The rule of a ScheduledJob, or of a row of its columns."""
    return Rule(row.cron_expression, row.time_zone, row.anchor, row.start_at, row.end_at)


class ScheduleFire(Base):
    """One due instant of a schedule and what became of it. It outlives its JobLog and keeps how that ended."""

    __tablename__ = "schedule_fires"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    scheduled_job_id: Mapped[UUID]
    fire_at: Mapped[datetime]
    outcome: Mapped[str] = mapped_column(sa.String(16))
    """`enqueued`, `skipped_overlap`, `missed`, or `refused` when the job could not be accepted."""
    kind: Mapped[str] = mapped_column(sa.String(8), default="clock")
    """`clock`, `manual` (run now) or `backfill`."""
    job_id: Mapped[UUID | None]
    job_status: Mapped[str | None] = mapped_column(sa.String(10))
    """How the job ended; written when its JobLog is purged, before that the JobLog tells."""
    detail: Mapped[str | None] = mapped_column(sa.String(500))
    created_at: Mapped[datetime]
    user_id: Mapped[str | None] = mapped_column(sa.String(200))

    __table_args__ = (
        sa.CheckConstraint("outcome IN ('enqueued','skipped_overlap','missed','refused')", "outcome"),
        sa.Index("uq_schedule_fires_instant", "scheduled_job_id", "fire_at", unique=True),
        sa.Index("ix_schedule_fires_fire_at", "fire_at"),
        sa.Index(
            "ix_schedule_fires_job",
            "job_id",
            postgresql_where=sa.text("job_id IS NOT NULL"),
            sqlite_where=sa.text("job_id IS NOT NULL"),
        ),
    )
