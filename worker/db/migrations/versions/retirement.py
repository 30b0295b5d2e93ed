"""Workers say when their parent replaces them: beyond how much memory, after how many jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "retirement"
down_revision = "backlog"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("max_memory_mb", sa.Float()))
    op.add_column("workers", sa.Column("max_jobs", sa.Integer()))


def downgrade() -> None:
    op.drop_column("workers", "max_jobs")
    op.drop_column("workers", "max_memory_mb")
