"""Webhooks, their deliveries and attempts, what was not delivered, and planned replays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import JSON, Time

revision = "webhooks"
down_revision = "rescued"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("event", sa.String(300), nullable=False),
        sa.Column("doctype_filter", sa.String(200)),
        sa.Column("condition", sa.Text()),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("method", sa.String(5), nullable=False),
        sa.Column("headers", JSON, nullable=False),
        sa.Column("secret_headers", JSON, nullable=False),
        sa.Column("payload_template", sa.Text()),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text()),
        sa.Column("previous_secret_until", Time),
        sa.Column("rotated_at", Time),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("retry", sa.String(5), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("rate_per_s", sa.Float()),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", Time),
        sa.Column("disabled_by", sa.String(200)),
        sa.Column("disabled_reason", sa.String(500)),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("created_by", sa.String(200)),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("deleted_at", Time),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("method IN ('POST','PUT','PATCH')", op.f("ck_webhooks_method")),
        sa.CheckConstraint("retry IN ('short','27h','75h')", op.f("ck_webhooks_retry")),
    )
    _index("uq_webhooks_name", "webhooks", ["name"], "deleted_at IS NULL", unique=True)
    op.create_table(
        "webhook_states",
        sa.Column(
            "webhook_id", sa.Uuid(), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("failing_since", Time),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("held_until", Time),
        sa.Column("paced_to", Time),
    )
    op.create_table(
        "webhook_logs",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("webhook_name", sa.String(200), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("event_type", sa.String(200), nullable=False),
        sa.Column("doctype", sa.String(200)),
        sa.Column("event", JSON, nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("trigger", sa.String(6), nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_trigger", sa.String(6), nullable=False),
        sa.Column("asked_by", sa.String(200)),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("body_hash", sa.String(64)),
        sa.Column("response_code", sa.Integer()),
        sa.Column("response_body", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("error_class", sa.String(40)),
        sa.Column("duration_ms", sa.Float()),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("claimed_by", sa.Uuid()),
        sa.Column("claimed_at", Time),
        sa.Column("claimed_until", Time),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("attempted_at", Time),
        sa.Column("ended_at", Time),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('pending','sending','retrying','success','failed')", op.f("ck_webhook_logs_status")
        ),
        sa.UniqueConstraint("webhook_id", "event_id"),
    )
    op.create_index("ix_webhook_logs_created_at", "webhook_logs", ["created_at"])
    _index(
        "ix_webhook_logs_due", "webhook_logs", ["webhook_id", "due_at"], "status IN ('pending','retrying')"
    )
    op.create_index("ix_webhook_logs_event_id", "webhook_logs", ["event_id"])
    _index("ix_webhook_logs_sending", "webhook_logs", ["webhook_id"], "status = 'sending'")
    op.create_index("ix_webhook_logs_status", "webhook_logs", ["status", "id"])
    _index(
        "ix_webhook_logs_tests",
        "webhook_logs",
        ["webhook_id", "due_at"],
        "status IN ('pending','retrying') AND trigger = 'test'",
    )
    op.create_index("ix_webhook_logs_webhook", "webhook_logs", ["webhook_id", "id"])
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column(
            "webhook_log_id", sa.Uuid(), sa.ForeignKey("webhook_logs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.String(6), nullable=False),
        sa.Column("user_id", sa.String(200)),
        sa.Column("outcome", sa.String(8), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("ended_at", Time, nullable=False),
        sa.Column("method", sa.String(5), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("request_headers", JSON, nullable=False),
        sa.Column("peer_ip", sa.String(45)),
        sa.Column("status_code", sa.Integer()),
        sa.Column("response_headers", JSON),
        sa.Column("response_body", sa.Text()),
        sa.Column("response_truncated", sa.Boolean(), nullable=False),
        sa.Column("dns_ms", sa.Float()),
        sa.Column("connect_ms", sa.Float()),
        sa.Column("tls_ms", sa.Float()),
        sa.Column("first_byte_ms", sa.Float()),
        sa.Column("total_ms", sa.Float()),
        sa.Column("error_class", sa.String(40)),
        sa.Column("error", sa.Text()),
        sa.Column("next_attempt_at", Time),
        sa.CheckConstraint("outcome IN ('success','failed','lost')", op.f("ck_webhook_attempts_outcome")),
    )
    op.create_index("ix_webhook_attempts_log", "webhook_attempts", ["webhook_log_id", "number"])
    op.create_index("ix_webhook_attempts_webhook", "webhook_attempts", ["webhook_id", "id"])
    op.create_table(
        "webhook_misses",
        sa.Column("event_id", sa.String(64), primary_key=True),
        sa.Column(
            "webhook_id", sa.Uuid(), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("event_type", sa.String(200), nullable=False),
        sa.Column("reason", sa.String(12), nullable=False),
        sa.Column("detail", sa.String(1000)),
        sa.Column("at", Time, nullable=False),
    )
    op.create_index("ix_webhook_misses_at", "webhook_misses", ["at"])
    op.create_index("ix_webhook_misses_webhook", "webhook_misses", ["webhook_id", "at"])
    op.create_table(
        "webhook_replays",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("filter", JSON, nullable=False),
        sa.Column("cutoff", Time, nullable=False),
        sa.Column("rate_per_s", sa.Float(), nullable=False),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("refusals", JSON, nullable=False),
        sa.Column("cursor", sa.Uuid()),
        sa.Column("next_at", Time, nullable=False),
        sa.Column("user_id", sa.String(200)),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("ended_at", Time),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    for table in (
        "webhook_replays", "webhook_misses", "webhook_attempts", "webhook_logs", "webhook_states", "webhooks",
    ):  # fmt: skip
        op.drop_table(table)


def _index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)
