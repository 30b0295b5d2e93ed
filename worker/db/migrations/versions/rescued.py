"""Rescued jobs are found first among the waiting ones, however many those are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "rescued"
down_revision = "upkeep"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rescued = sa.text("status = 'queued' AND lane != 'normal'")
    columns = ["status", "queue", "priority", "run_at"]
    op.create_index(
        "ix_job_logs_rescued", "job_logs", columns, postgresql_where=rescued, sqlite_where=rescued
    )


def downgrade() -> None:
    op.drop_index("ix_job_logs_rescued", "job_logs")
