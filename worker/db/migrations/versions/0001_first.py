"""The first schema: jobs, queues, workers, the outbox, accounts, audit; terminal states and audit are frozen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from worker.db.base import JSON, Time, metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER job_logs_terminal_is_final BEFORE UPDATE OF status, result, error, epoch ON job_logs
    WHEN OLD.status IN ('success', 'failed', 'cancelled')
      AND NOT (OLD.status <> 'success' AND NEW.status = 'queued' AND NEW.epoch > OLD.epoch)
      AND (NEW.status <> OLD.status OR NEW.result IS NOT OLD.result OR NEW.error IS NOT OLD.error
           OR NEW.epoch <> OLD.epoch)
    BEGIN SELECT RAISE(ABORT, 'a terminal job does not change'); END
    """,
    """
    CREATE TRIGGER audit_entries_append_only BEFORE UPDATE ON audit_entries
    WHEN NOT (OLD.seal IS NULL AND NEW.seal IS NOT NULL AND NEW.id = OLD.id AND NEW.at = OLD.at
              AND NEW.actor = OLD.actor AND NEW.action = OLD.action AND NEW.denied = OLD.denied
              AND NEW.actor_role = OLD.actor_role AND NEW.via = OLD.via AND NEW.ip = OLD.ip
              AND NEW.request_id = OLD.request_id AND NEW.object_type = OLD.object_type
              AND NEW.object_id = OLD.object_id AND NEW.before IS OLD.before AND NEW.after IS OLD.after)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """,
    """
    CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
    """,
)

POSTGRESQL_TRIGGERS = (
    """
    CREATE FUNCTION job_logs_terminal_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NOT (OLD.status <> 'success' AND NEW.status = 'queued' AND NEW.epoch > OLD.epoch)
         AND (NEW.status, NEW.result, NEW.error, NEW.epoch)
             IS DISTINCT FROM (OLD.status, OLD.result, OLD.error, OLD.epoch) THEN
        RAISE EXCEPTION 'a terminal job does not change' USING ERRCODE = 'check_violation';
      END IF;
      RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER job_logs_terminal_is_final BEFORE UPDATE ON job_logs FOR EACH ROW
    WHEN (OLD.status IN ('success', 'failed', 'cancelled')) EXECUTE FUNCTION job_logs_terminal_is_final()
    """,
    """
    CREATE FUNCTION audit_entries_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'UPDATE' AND OLD.seal IS NULL AND NEW.seal IS NOT NULL
         AND to_jsonb(NEW) - 'seal' = to_jsonb(OLD) - 'seal' THEN
        RETURN NEW;
      END IF;
      RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'check_violation';
    END $$
    """,
    """
    CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON audit_entries
    FOR EACH ROW EXECUTE FUNCTION audit_entries_append_only()
    """,
)


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("actor_role", sa.String(length=10), nullable=False),
        sa.Column("via", sa.String(length=10), nullable=False),
        sa.Column("ip", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("object_type", sa.String(length=40), nullable=False),
        sa.Column("object_id", sa.String(length=200), nullable=False),
        sa.Column("denied", sa.Boolean(), nullable=False),
        sa.Column("before", JSON, nullable=True),
        sa.Column("after", JSON, nullable=True),
        sa.Column("seal", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("seal", name=op.f("uq_audit_entries_seal")),
    )
    op.create_index("ix_audit_entries_actor", "audit_entries", ["actor", "id"], unique=False)
    op.create_index(
        "ix_audit_entries_object", "audit_entries", ["object_type", "object_id", "id"], unique=False
    )
    op.create_index(
        "ix_audit_entries_unsealed",
        "audit_entries",
        ["id"],
        unique=False,
        postgresql_where=sa.text("seal IS NULL"),
        sqlite_where=sa.text("seal IS NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("key", "user_id", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "job_catalogue",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("module", sa.String(length=300), nullable=False),
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("doc", sa.Text(), nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("args_schema", JSON, nullable=False),
        sa.Column("retry", JSON, nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("isolation", sa.String(length=8), nullable=False),
        sa.Column("on_lost", sa.String(length=8), nullable=False),
        sa.Column("on_events", JSON, nullable=False),
        sa.Column("schedules", JSON, nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("first_seen_at", Time, nullable=False),
        sa.Column("advertised_at", Time, nullable=False),
        sa.Column("paused_at", Time, nullable=True),
        sa.Column("pause_reason", sa.String(length=500), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("rate_limit", sa.Float(), nullable=True),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_catalogue")),
    )
    op.create_table(
        "job_counter_deltas",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_name", sa.String(length=200), nullable=False),
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_counter_deltas")),
    )
    op.create_table(
        "job_counters",
        sa.Column("job_name", sa.String(length=200), nullable=False),
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_name", "queue", "status", name=op.f("pk_job_counters")),
    )
    op.create_table(
        "job_logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_name", sa.String(length=200), nullable=False),
        sa.Column("queue", sa.String(length=63), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("args", JSON, nullable=False),
        sa.Column("result", JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("error_fingerprint", sa.String(length=32), nullable=True),
        sa.Column("enqueued_at", Time, nullable=False),
        sa.Column("run_at", Time, nullable=False),
        sa.Column("started_at", Time, nullable=True),
        sa.Column("completed_at", Time, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("lost_count", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(length=6), nullable=False),
        sa.Column("progress", sa.Float(), nullable=True),
        sa.Column("progress_note", sa.String(length=500), nullable=True),
        sa.Column("checkpoint", JSON, nullable=True),
        sa.Column("cancel_requested_at", Time, nullable=True),
        sa.Column("user_id", sa.String(length=200), nullable=True),
        sa.Column("scheduled_job_id", sa.Uuid(), nullable=True),
        sa.Column("rerun_of", sa.Uuid(), nullable=True),
        sa.Column("unique_key", sa.String(length=200), nullable=True),
        sa.Column("correlation_id", sa.String(length=200), nullable=True),
        sa.Column("caused_by", sa.String(length=200), nullable=True),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("resolved_at", Time, nullable=True),
        sa.Column("deleted_at", Time, nullable=True),
        sa.CheckConstraint(
            "status IN ('scheduled','queued','running','retrying','success','failed','cancelled')",
            name=op.f("ck_job_logs_status"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 9", name=op.f("ck_job_logs_priority")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_logs")),
    )
    op.create_index("ix_job_logs_completed", "job_logs", ["completed_at"], unique=False)
    op.create_index(
        "ix_job_logs_due",
        "job_logs",
        ["run_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('scheduled','retrying')"),
        sqlite_where=sa.text("status IN ('scheduled','retrying')"),
    )
    op.create_index("ix_job_logs_name_id", "job_logs", ["job_name", "id"], unique=False)
    op.create_index("ix_job_logs_name_status_id", "job_logs", ["job_name", "status", "id"], unique=False)
    op.create_index("ix_job_logs_queue_id", "job_logs", ["queue", "id"], unique=False)
    op.create_index("ix_job_logs_queue_status_id", "job_logs", ["queue", "status", "id"], unique=False)
    op.create_index(
        "ix_job_logs_running",
        "job_logs",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
        sqlite_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_job_logs_correlation",
        "job_logs",
        ["correlation_id"],
        unique=False,
        postgresql_where=sa.text("correlation_id IS NOT NULL"),
        sqlite_where=sa.text("correlation_id IS NOT NULL"),
    )
    op.create_index(
        "ix_job_logs_rerun_of",
        "job_logs",
        ["rerun_of"],
        unique=False,
        postgresql_where=sa.text("rerun_of IS NOT NULL"),
        sqlite_where=sa.text("rerun_of IS NOT NULL"),
    )
    op.create_index(
        "ix_job_logs_unresolved",
        "job_logs",
        ["status", "resolved_at", "deleted_at", "error_fingerprint", "completed_at"],
        unique=False,
        postgresql_where=sa.text("status = 'failed' AND resolved_at IS NULL AND deleted_at IS NULL"),
        sqlite_where=sa.text("status = 'failed' AND resolved_at IS NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_job_logs_with_error",
        "job_logs",
        ["id"],
        unique=False,
        postgresql_where=sa.text("error IS NOT NULL"),
        sqlite_where=sa.text("error IS NOT NULL"),
    )
    op.create_index(
        "ix_job_logs_fingerprint",
        "job_logs",
        ["error_fingerprint", "id"],
        unique=False,
        postgresql_where=sa.text("error_fingerprint IS NOT NULL"),
        sqlite_where=sa.text("error_fingerprint IS NOT NULL"),
    )
    op.create_index(
        "ix_job_logs_cancelled",
        "job_logs",
        ["status", "completed_at"],
        unique=False,
        postgresql_where=sa.text("status = 'cancelled'"),
        sqlite_where=sa.text("status = 'cancelled'"),
    )
    op.create_index(
        "ix_job_logs_failed",
        "job_logs",
        ["status", "completed_at", "deleted_at", "job_name"],
        unique=False,
        postgresql_where=sa.text("status = 'failed'"),
        sqlite_where=sa.text("status = 'failed'"),
    )
    op.create_index("ix_job_logs_status_id", "job_logs", ["status", "id"], unique=False)
    op.create_index(
        "ix_job_logs_waiting",
        "job_logs",
        ["status", "queue", "priority", "run_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "uq_job_logs_unique_key",
        "job_logs",
        ["unique_key"],
        unique=True,
        postgresql_where=sa.text("status IN ('scheduled','queued','running','retrying')"),
        sqlite_where=sa.text("status IN ('scheduled','queued','running','retrying')"),
    )
    op.create_table(
        "job_operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("filter", JSON, nullable=False),
        sa.Column("cutoff", Time, nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("cursor", sa.Uuid(), nullable=True),
        sa.Column("refusals", JSON, nullable=False),
        sa.Column("user_id", sa.String(length=200), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("ended_at", Time, nullable=True),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_operations")),
    )
    op.create_table(
        "one_time_tokens",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=10), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("subject", JSON, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_one_time_tokens")),
    )
    op.create_index(op.f("ix_one_time_tokens_purpose"), "one_time_tokens", ["purpose"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("events", JSON, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("published_at", Time, nullable=True),
        sa.Column("matched_at", Time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_created_at", "outbox", ["created_at"], unique=False)
    op.create_index(
        "ix_outbox_unpublished",
        "outbox",
        ["id"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
        sqlite_where=sa.text("published_at IS NULL"),
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("paused_at", Time, nullable=True),
        sa.Column("paused_by", sa.String(length=200), nullable=True),
        sa.Column("pause_reason", sa.String(length=500), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
    )
    op.create_table(
        "throttles",
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("window_started_at", Time, nullable=False),
        sa.Column("blocked_until", Time, nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_throttles")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=True),
        sa.Column("service", sa.Boolean(), nullable=False),
        sa.Column("auth_version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("disabled_at", Time, nullable=True),
        sa.Column("preferences", JSON, nullable=False),
        sa.CheckConstraint("role IN ('viewer','operator','admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("supervisor_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=False),
        sa.Column("process_started", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("queues", JSON, nullable=False),
        sa.Column("jobs", JSON, nullable=False),
        sa.Column("modules", JSON, nullable=False),
        sa.Column("priorities", sa.String(length=10), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("memory_mb", sa.Float(), nullable=True),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", Time, nullable=False),
        sa.Column("held", JSON, nullable=False),
        sa.Column("held_at", Time, nullable=True),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("stopping_at", Time, nullable=True),
        sa.Column("ended_at", Time, nullable=True),
        sa.Column("end_reason", sa.String(length=200), nullable=True),
        sa.Column("wish", sa.String(length=10), nullable=True),
        sa.Column("stale_finishes", sa.Integer(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_index("ix_workers_live", "workers", ["ended_at", "supervisor_id"], unique=False)
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=10), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=True),
        sa.Column("last_used_at", Time, nullable=True),
        sa.Column("revoked_at", Time, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_index(op.f("ix_api_tokens_prefix"), "api_tokens", ["prefix"], unique=False)
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "job_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("run_at", Time, nullable=True),
        sa.Column("started_at", Time, nullable=True),
        sa.Column("ended_at", Time, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("retry_at", Time, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job_logs.id"], name=op.f("fk_job_attempts_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_attempts")),
        sa.UniqueConstraint("job_id", "epoch", "outcome", name=op.f("uq_job_attempts_job_id_epoch_outcome")),
    )
    op.create_index(op.f("ix_job_attempts_job_id"), "job_attempts", ["job_id"], unique=False)
    op.create_table(
        "job_effects",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("value", JSON, nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job_logs.id"], name=op.f("fk_job_effects_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_job_effects")),
    )
    op.create_table(
        "job_log_lines",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("level", sa.String(length=10), nullable=False),
        sa.Column("logger", sa.String(length=200), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job_logs.id"], name=op.f("fk_job_log_lines_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "epoch", "seq", name=op.f("pk_job_log_lines")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("last_seen_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("ended_at", Time, nullable=True),
        sa.Column("ip", sa.String(length=64), nullable=False),
        sa.Column("user_agent", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sessions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sessions_token_hash")),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in SQLITE_TRIGGERS if sqlite else POSTGRESQL_TRIGGERS:
        op.execute(sa.text(statement))


def downgrade() -> None:
    metadata.drop_all(op.get_bind())
