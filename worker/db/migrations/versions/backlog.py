"""Queues remember since when they have been behind, so that it is told once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import Time

revision = "backlog"
down_revision = "webhooks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queues", sa.Column("backlog_since", Time))


def downgrade() -> None:
    op.drop_column("queues", "backlog_since")
