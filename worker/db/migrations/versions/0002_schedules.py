"""Schedules and what became of their instants; workers say which schedules their code has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import JSON, Time

revision = "schedules"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduled_jobs",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("function", sa.String(200), nullable=False),
        sa.Column("args", JSON, nullable=False),
        sa.Column("queue", sa.String(63)),
        sa.Column("priority", sa.SmallInteger()),
        sa.Column("cron_expression", sa.String(200), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("anchor", Time, nullable=False),
        sa.Column("start_at", Time),
        sa.Column("end_at", Time),
        sa.Column("jitter_s", sa.Float(), nullable=False),
        sa.Column("missed", sa.String(6), nullable=False),
        sa.Column("catch_up_s", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.String(14), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("paused_at", Time),
        sa.Column("paused_until", Time),
        sa.Column("paused_by", sa.String(200)),
        sa.Column("pause_reason", sa.String(500)),
        sa.Column("next_fire_at", Time),
        sa.Column("last_fire_at", Time),
        sa.Column("last_job_id", sa.Uuid()),
        sa.Column("module", sa.String(300)),
        sa.Column("code_key", sa.String(300)),
        sa.Column("code_hash", sa.String(64)),
        sa.Column("code_hashes", JSON, nullable=False),
        sa.Column("edited_at", Time),
        sa.Column("retired_at", Time),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("created_by", sa.String(200)),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("deleted_at", Time),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("missed IN ('skip','latest','all')", op.f("ck_scheduled_jobs_missed")),
        sa.CheckConstraint("overlap IN ('allow','skip','cancel_running')", op.f("ck_scheduled_jobs_overlap")),
    )
    op.create_table(
        "schedule_fires",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("scheduled_job_id", sa.Uuid(), nullable=False),
        sa.Column("fire_at", Time, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("job_id", sa.Uuid()),
        sa.Column("job_status", sa.String(10)),
        sa.Column("detail", sa.String(500)),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("user_id", sa.String(200)),
        sa.CheckConstraint(
            "outcome IN ('enqueued','skipped_overlap','missed','refused')", op.f("ck_schedule_fires_outcome")
        ),
    )
    _index("ix_scheduled_jobs_due", "scheduled_jobs", ["next_fire_at"], "next_fire_at IS NOT NULL")
    _index("uq_scheduled_jobs_name", "scheduled_jobs", ["name"], "deleted_at IS NULL", unique=True)
    _index(
        "uq_scheduled_jobs_code_key",
        "scheduled_jobs",
        ["code_key"],
        "code_key IS NOT NULL AND deleted_at IS NULL",
        unique=True,
    )
    op.create_index("ix_scheduled_jobs_function", "scheduled_jobs", ["function"])
    op.create_index(
        "uq_schedule_fires_instant", "schedule_fires", ["scheduled_job_id", "fire_at"], unique=True
    )
    op.create_index("ix_schedule_fires_fire_at", "schedule_fires", ["fire_at"])
    _index("ix_schedule_fires_job", "schedule_fires", ["job_id"], "job_id IS NOT NULL")
    _index("ix_job_logs_scheduled", "job_logs", ["scheduled_job_id", "id"], "scheduled_job_id IS NOT NULL")
    _index(
        "ix_job_logs_scheduled_live",
        "job_logs",
        ["scheduled_job_id"],
        "scheduled_job_id IS NOT NULL AND status IN ('scheduled','queued','running','retrying')",
    )
    op.add_column("workers", sa.Column("schedules", JSON, nullable=False, server_default=sa.text("'[]'")))


def downgrade() -> None:
    op.drop_column("workers", "schedules")
    op.drop_index("ix_job_logs_scheduled_live", "job_logs")
    op.drop_index("ix_job_logs_scheduled", "job_logs")
    op.drop_table("schedule_fires")
    op.drop_table("scheduled_jobs")


def _index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)
