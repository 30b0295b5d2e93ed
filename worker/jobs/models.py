"""Tables of what can run: the jobs that workers offer and the queues they take from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base


class JobCatalogue(Base):
    """A job that workers advertise, so that the web process draws its forms without importing job code."""

    __tablename__ = "job_catalogue"

    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    module: Mapped[str] = mapped_column(sa.String(300))
    queue: Mapped[str] = mapped_column(sa.String(63))
    doc: Mapped[str] = mapped_column(sa.Text, default="")
    parameters: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """The signature as form fields: a list of the objects `worker.jobs.parameters.Field` serialises to."""
    args_schema: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """JSON Schema (2020-12) of the arguments object; the web process validates with it."""
    retry: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    max_retries: Mapped[int] = mapped_column(default=3)
    timeout_s: Mapped[float] = mapped_column(default=300.0)
    isolation: Mapped[str] = mapped_column(sa.String(8), default="")
    on_lost: Mapped[str] = mapped_column(sa.String(8), default="restart")
    on_events: Mapped[list[Any]] = mapped_column(JSON, default=list)
    schedules: Mapped[list[Any]] = mapped_column(JSON, default=list)
    fingerprint: Mapped[str] = mapped_column(sa.String(64), default="")
    first_seen_at: Mapped[datetime]
    advertised_at: Mapped[datetime]

    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None] = mapped_column(sa.String(200))
    pause_reason: Mapped[str | None] = mapped_column(sa.String(500))
    concurrency: Mapped[int | None]
    rate_limit: Mapped[float | None]
    """Starts a second over all workers, or None."""
    rate_burst: Mapped[int | None]
    """How many may start at once after a quiet time; None means what a tenth of a second brings."""
    rate_tat: Mapped[datetime | None]
    """Where the rate stands: written by claims, see `worker.jobs.rate`."""
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)


class Queue(Base):
    """A named lane of jobs with its controls."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(sa.String(63), primary_key=True)
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None] = mapped_column(sa.String(200))
    pause_reason: Mapped[str | None] = mapped_column(sa.String(500))
    concurrency: Mapped[int | None]
    backlog_since: Mapped[datetime | None]
    """Since when it has been behind, as `queue.backlog` told."""
    created_at: Mapped[datetime]
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)
