"""Tables of webhooks: who is told of which events, every delivery, every request, and what was not delivered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base, new_id
from worker.events.publishing import publishes

NAME_LENGTH: Final = 200
METHODS: Final = ("POST", "PUT", "PATCH")
WAITING: Final = ("pending", "retrying")
ENDED: Final = ("success", "failed")
DUE: Final = "status IN ('pending','retrying')"
"""The deliveries that wait for their time."""


@publishes(
    "name", "event", "doctype_filter", "method", "enabled", "disabled_at", "deleted_at", deleted="deleted_at",
)  # fmt: skip
class Webhook(Base):
    """A stored subscription: which events, to which URL, signed how. Only actions write it; couriers write its state."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(sa.String(NAME_LENGTH))
    event: Mapped[str] = mapped_column(sa.String(300))
    """The pattern of the events it wants: `doc.*`, `job.>`."""
    doctype_filter: Mapped[str | None] = mapped_column(sa.String(200))
    """Of events of documents, only those of this doctype; None means all."""
    condition: Mapped[str | None] = mapped_column(sa.Text)
    """A JMESPath expression over the event; None means always."""

    url: Mapped[str] = mapped_column(sa.Text)
    method: Mapped[str] = mapped_column(sa.String(5), default="POST")
    headers: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    secret_headers: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Header names and their values, each value encrypted."""
    payload_template: Mapped[str | None] = mapped_column(sa.Text)
    """A Jinja template of the body; None means the body of Standard Webhooks."""

    secret: Mapped[str] = mapped_column(sa.Text)
    """The signing secret, encrypted."""
    previous_secret: Mapped[str | None] = mapped_column(sa.Text)
    """The secret before the last rotation, encrypted; it signs too until `previous_secret_until`."""
    previous_secret_until: Mapped[datetime | None]
    rotated_at: Mapped[datetime | None]

    timeout_s: Mapped[float] = mapped_column(default=30.0)
    """The deadline of one attempt from the look-up of the name to the last byte."""
    retry: Mapped[str] = mapped_column(sa.String(5), default="short")
    """The plan of retries: `short`, `27h` or `75h`."""
    max_retries: Mapped[int] = mapped_column(default=3)
    rate_per_s: Mapped[float | None]
    """How many requests a second at most; None means any number."""
    concurrency: Mapped[int] = mapped_column(default=10)
    """How many requests at once at most."""

    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_at: Mapped[datetime | None]
    disabled_by: Mapped[str | None] = mapped_column(sa.String(200))
    """A person's name, or `engine`."""
    disabled_reason: Mapped[str | None] = mapped_column(sa.String(500))

    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(sa.String(200))
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    """Raised by every edit: whoever saves names the version they saw."""
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)

    __table_args__ = (
        sa.CheckConstraint("method IN ('POST','PUT','PATCH')", "method"),
        sa.CheckConstraint("retry IN ('short','27h','75h')", "retry"),
        sa.Index(
            "uq_webhooks_name",
            "name",
            unique=True,
            postgresql_where=sa.text("deleted_at IS NULL"),
            sqlite_where=sa.text("deleted_at IS NULL"),
        ),
    )


class WebhookState(Base):
    """How a webhook fares, one row for each. Claims lock it, so limits hold over all couriers."""

    __tablename__ = "webhook_states"

    webhook_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True
    )
    failing_since: Mapped[datetime | None]
    """The first failure of the present run of nothing but failures; None after a success."""
    failures: Mapped[int] = mapped_column(default=0)
    """Failed attempts in that run."""
    held_until: Mapped[datetime | None]
    """The receiver asked to be left alone until then (Retry-After)."""
    paced_to: Mapped[datetime | None]
    """Up to when the rate limit is used up."""


class WebhookLog(Base):
    """One delivery of one event to one webhook, with its whole life. Its id is the delivery's id."""

    __tablename__ = "webhook_logs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID]
    webhook_name: Mapped[str] = mapped_column(sa.String(NAME_LENGTH))
    """The name when the event came."""
    event_id: Mapped[str] = mapped_column(sa.String(64))
    event_type: Mapped[str] = mapped_column(sa.String(200))
    doctype: Mapped[str | None] = mapped_column(sa.String(200))
    event: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The whole event, so that it can be sent for as long as the delivery is kept."""

    status: Mapped[str] = mapped_column(sa.String(8), default="pending")
    trigger: Mapped[str] = mapped_column(sa.String(6), default="auto")
    """`auto`, or `test` for a test event that a person sent."""
    due_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    """Attempts since it was matched or last replayed: what the plan of retries counts."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts ever made."""
    next_trigger: Mapped[str] = mapped_column(sa.String(6), default="auto")
    """Why the next attempt is made: `auto`, `test`, `manual` (one was replayed) or `replay` (a batch)."""
    asked_by: Mapped[str | None] = mapped_column(sa.String(200))
    """Who sent the test or replayed it last."""

    body: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    """The exact bytes, once rendered; retries send the same."""
    body_hash: Mapped[str | None] = mapped_column(sa.String(64))
    """SHA-256 of the body, hex."""

    response_code: Mapped[int | None]
    response_body: Mapped[str | None] = mapped_column(sa.Text)
    """Of the last attempt, up to 64 KB."""
    error: Mapped[str | None] = mapped_column(sa.Text)
    error_class: Mapped[str | None] = mapped_column(sa.String(40))
    duration_ms: Mapped[float | None]
    """Of the last attempt, in all."""

    epoch: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    """Raised by every claim: what an earlier holder writes is dropped."""
    claimed_by: Mapped[UUID | None]
    claimed_at: Mapped[datetime | None]
    claimed_until: Mapped[datetime | None]
    """After this its holder is taken for dead, and it is due again."""

    created_at: Mapped[datetime]
    attempted_at: Mapped[datetime | None]
    """When the last attempt began."""
    ended_at: Mapped[datetime | None]
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)

    __table_args__ = (
        sa.CheckConstraint("status IN ('pending','sending','retrying','success','failed')", "status"),
        sa.UniqueConstraint("webhook_id", "event_id"),
        sa.Index("ix_webhook_logs_webhook", "webhook_id", "id"),
        sa.Index("ix_webhook_logs_event_id", "event_id"),
        sa.Index("ix_webhook_logs_status", "status", "id"),
        sa.Index("ix_webhook_logs_created_at", "created_at"),
        sa.Index(
            "ix_webhook_logs_due",
            "webhook_id",
            "due_at",
            postgresql_where=sa.text(DUE),
            sqlite_where=sa.text(DUE),
        ),
        sa.Index(
            "ix_webhook_logs_tests",
            "webhook_id",
            "due_at",
            postgresql_where=sa.text(f"{DUE} AND trigger = 'test'"),
            sqlite_where=sa.text(f"{DUE} AND trigger = 'test'"),
        ),
        sa.Index(
            "ix_webhook_logs_sending",
            "webhook_id",
            postgresql_where=sa.text("status = 'sending'"),
            sqlite_where=sa.text("status = 'sending'"),
        ),
    )


class WebhookAttempt(Base):
    """One HTTP request of a delivery, or the attempt to make one. Times ending in `_ms` are milliseconds of a phase."""

    __tablename__ = "webhook_attempts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_log_id: Mapped[UUID] = mapped_column(sa.ForeignKey("webhook_logs.id", ondelete="CASCADE"))
    webhook_id: Mapped[UUID]
    number: Mapped[int]
    trigger: Mapped[str] = mapped_column(sa.String(6))
    """`auto`, `manual` (one was replayed), `replay` (a batch) or `test`."""
    user_id: Mapped[str | None] = mapped_column(sa.String(200))
    """Who asked for it, if somebody did."""
    outcome: Mapped[str] = mapped_column(sa.String(8))
    """`success`, `failed`, or `lost`: its courier died, and nobody knows whether it arrived."""
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime]

    method: Mapped[str] = mapped_column(sa.String(5))
    url: Mapped[str] = mapped_column(sa.Text)
    request_headers: Mapped[dict[str, Any]] = mapped_column(JSON)
    """As sent, with secret values and the signature masked."""
    peer_ip: Mapped[str | None] = mapped_column(sa.String(45))
    status_code: Mapped[int | None]
    response_headers: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """As received, with cookies masked."""
    response_body: Mapped[str | None] = mapped_column(sa.Text)
    response_truncated: Mapped[bool] = mapped_column(default=False)
    """Whether there was more than the 64 KB that are kept."""

    dns_ms: Mapped[float | None]
    connect_ms: Mapped[float | None]
    tls_ms: Mapped[float | None]
    first_byte_ms: Mapped[float | None]
    total_ms: Mapped[float | None]

    error_class: Mapped[str | None] = mapped_column(sa.String(40))
    error: Mapped[str | None] = mapped_column(sa.Text)
    next_attempt_at: Mapped[datetime | None]

    __table_args__ = (
        sa.CheckConstraint("outcome IN ('success','failed','lost')", "outcome"),
        sa.Index("ix_webhook_attempts_log", "webhook_log_id", "number"),
        sa.Index("ix_webhook_attempts_webhook", "webhook_id", "id"),
    )


class WebhookMiss(Base):
    """Why an event that a webhook's pattern and doctype mean was not delivered, as it was decided at that time."""

    __tablename__ = "webhook_misses"

    event_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    webhook_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True
    )
    event_type: Mapped[str] = mapped_column(sa.String(200))
    reason: Mapped[str] = mapped_column(sa.String(12))
    """`disabled`, `later` (the webhook was made after the event), `own` (the event is about the webhook itself),
    `condition` (it was false), or `error` (the condition could not be evaluated)."""
    detail: Mapped[str | None] = mapped_column(sa.String(1000))
    """The value that decided it."""
    at: Mapped[datetime]

    __table_args__ = (
        sa.Index("ix_webhook_misses_webhook", "webhook_id", "at"),
        sa.Index("ix_webhook_misses_at", "at"),
    )


class WebhookReplay(Base):
    """A planned batch: deliveries that a filter means are sent again, so many a second, until it is done or stopped."""

    __tablename__ = "webhook_replays"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    filter: Mapped[dict[str, Any]] = mapped_column(JSON)
    cutoff: Mapped[datetime]
    """Deliveries made after this are left out."""
    rate_per_s: Mapped[float] = mapped_column(default=10.0)
    status: Mapped[str] = mapped_column(sa.String(8), default="pending")
    """`pending`, `running`, `done` or `stopped`."""
    total: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    refusals: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """The first hundred that could not be sent again: [{"log_id", "why"}, …]."""
    cursor: Mapped[UUID | None]
    next_at: Mapped[datetime]
    user_id: Mapped[str | None] = mapped_column(sa.String(200))
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    stop_requested: Mapped[bool] = mapped_column(default=False)
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)
