"""Events are handed over once: an index of those that wait. What was recorded before this starts nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "events"
down_revision = "controls"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE outbox SET matched_at = created_at WHERE matched_at IS NULL")
    op.create_index(
        "ix_outbox_unmatched",
        "outbox",
        ["id"],
        postgresql_where=sa.text("matched_at IS NULL"),
        sqlite_where=sa.text("matched_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_outbox_unmatched", "outbox")
