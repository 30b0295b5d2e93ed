"""Rate limits of jobs: how many may start at once, where the rate stands; and who paused a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import Time

revision = "controls"
down_revision = "schedules"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job_catalogue", sa.Column("paused_by", sa.String(200)))
    op.add_column("job_catalogue", sa.Column("rate_burst", sa.Integer))
    op.add_column("job_catalogue", sa.Column("rate_tat", Time))


def downgrade() -> None:
    for name in ("rate_tat", "rate_burst", "paused_by"):
        op.drop_column("job_catalogue", name)
