"""When retention last looked at each kind of row, and how many it has removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import Time

revision = "upkeep"
down_revision = "innocence"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upkeep",
        sa.Column("what", sa.String(40), primary_key=True),
        sa.Column("last_run_at", Time, nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("upkeep")
