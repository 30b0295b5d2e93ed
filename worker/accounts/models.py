"""Tables of who may look, who may act, and who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base, new_id
from worker.events.publishing import publishes


@publishes("name", "role", "service", "disabled_at")
class User(Base):
    """A person, or a service account (no password: it acts by API tokens only)."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(sa.String(200), unique=True)
    role: Mapped[str] = mapped_column(sa.String(10))
    password_hash: Mapped[str | None] = mapped_column(sa.String(200))
    service: Mapped[bool] = mapped_column(default=False)
    auth_version: Mapped[int] = mapped_column(sa.BigInteger, default=1)
    """Raised by every change of password, role or standing: older cached answers are void."""
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    preferences: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Theme, time zone, keyboard switches."""

    __table_args__ = (sa.CheckConstraint("role IN ('viewer','operator','admin')", "role"),)


class Session(Base):
    """A browser that signed in. Only the SHA-256 of its token is kept."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ip: Mapped[str] = mapped_column(sa.String(64), default="")
    user_agent: Mapped[str] = mapped_column(sa.String(300), default="")


class ApiToken(Base):
    """A key for programs. Its right is the lesser of its role and its owner's current one."""

    __tablename__ = "api_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    prefix: Mapped[str] = mapped_column(sa.String(16), index=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    name: Mapped[str] = mapped_column(sa.String(200))
    role: Mapped[str] = mapped_column(sa.String(10))
    user_id: Mapped[UUID] = mapped_column(sa.ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OneTimeToken(Base):
    """A set-up link or a stream ticket: its hash, consumed by one atomic statement."""

    __tablename__ = "one_time_tokens"

    token_hash: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    purpose: Mapped[str] = mapped_column(sa.String(10), index=True)
    user_id: Mapped[UUID | None]
    subject: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Throttle(Base):
    """Failures counted per account, address or action, so that two web processes agree."""

    __tablename__ = "throttles"

    key: Mapped[str] = mapped_column(sa.String(300), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    window_started_at: Mapped[datetime]
    blocked_until: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what, written in the action's own transaction. `seal` chains the entries, set by the clerk."""

    __tablename__ = "audit_entries"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(sa.String(200))
    actor_role: Mapped[str] = mapped_column(sa.String(10), default="")
    via: Mapped[str] = mapped_column(sa.String(10), default="desk")
    """`desk`, `api`, `cli` or `engine`."""
    ip: Mapped[str] = mapped_column(sa.String(64), default="")
    request_id: Mapped[str] = mapped_column(sa.String(64), default="")
    action: Mapped[str] = mapped_column(sa.String(60))
    object_type: Mapped[str] = mapped_column(sa.String(40), default="")
    object_id: Mapped[str] = mapped_column(sa.String(200), default="")
    denied: Mapped[bool] = mapped_column(default=False)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    seal: Mapped[str | None] = mapped_column(sa.String(64), unique=True)
    """The entry's place in the chain and its hash: sorts in chain order (see audit.py)."""

    __table_args__ = (
        sa.Index("ix_audit_entries_object", "object_type", "object_id", "id"),
        sa.Index("ix_audit_entries_actor", "actor", "id"),
        sa.Index(
            "ix_audit_entries_unsealed",
            "id",
            postgresql_where=sa.text("seal IS NULL"),
            sqlite_where=sa.text("seal IS NULL"),
        ),
    )
