"""The outbox: facts recorded in the transaction that made them true."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base, new_id


class OutboxRow(Base):
    """The events of one transaction, their ids fixed; published on the bus by the relay."""

    __tablename__ = "outbox"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    events: Mapped[list[Any]] = mapped_column(JSON)
    """[{"event_id", "event_type", "timestamp", "user_id", "data", …}, …]"""
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    """When the relay gave it to the bus."""
    matched_at: Mapped[datetime | None]
    """When it was handed to those who act on events: jobs that wait for them, webhooks."""

    __table_args__ = (
        sa.Index(
            "ix_outbox_unpublished",
            "id",
            postgresql_where=sa.text("published_at IS NULL"),
            sqlite_where=sa.text("published_at IS NULL"),
        ),
        sa.Index(
            "ix_outbox_unmatched",
            "id",
            postgresql_where=sa.text("matched_at IS NULL"),
            sqlite_where=sa.text("matched_at IS NULL"),
        ),
        sa.Index("ix_outbox_created_at", "created_at"),
    )
