"""Deaths in a process of its own are told from losses with a worker: only the former convict a job as poison."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "innocence"
down_revision = "events"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_logs", sa.Column("died_alone", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("job_logs", "died_alone")
