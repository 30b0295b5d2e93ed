"""The table of running worker processes: the lease of every job they hold."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from worker.db.base import JSON, Base


class Worker(Base):
    """One start of one process. `beat` is the lease of everything it runs; a new start has a new id."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    supervisor_id: Mapped[UUID | None]
    kind: Mapped[str] = mapped_column(sa.String(8))
    """`worker` runs jobs, `clerk` runs the loops, `inline` is a web process that does both."""
    host: Mapped[str] = mapped_column(sa.String(255))
    pid: Mapped[int]
    boot_id: Mapped[str] = mapped_column(sa.String(64), default="")
    process_started: Mapped[str] = mapped_column(sa.String(64), default="")
    """The start time as this host's process table words it: with boot id and pid it names one process."""
    version: Mapped[str] = mapped_column(sa.String(40), default="")
    queues: Mapped[list[Any]] = mapped_column(JSON, default=list)
    jobs: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Names of the jobs that this process can run."""
    modules: Mapped[list[Any]] = mapped_column(JSON, default=list)
    schedules: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """What its code has of schedules, as `worker.schedules.code.CodeSchedule` writes them."""
    priorities: Mapped[str] = mapped_column(sa.String(10), default="0-9")
    slots: Mapped[int] = mapped_column(default=0)
    busy: Mapped[int] = mapped_column(default=0)
    memory_mb: Mapped[float | None]
    max_memory_mb: Mapped[float | None]
    """Beyond this its parent replaces it."""
    max_jobs: Mapped[int | None]
    """After so many jobs its parent replaces it."""
    beat: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    beat_at: Mapped[datetime]
    held: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """What the process itself says it runs: [[job id, epoch], …]."""
    held_at: Mapped[datetime | None]
    started_at: Mapped[datetime]
    stopping_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(sa.String(200))
    wish: Mapped[str | None] = mapped_column(sa.String(10))
    """What an operator asked of it: `drain` or `restart`."""
    stale_finishes: Mapped[int] = mapped_column(default=0)
    """Results of this process that came too late and were dropped."""
    rev: Mapped[int] = mapped_column(sa.BigInteger, default=1)

    __table_args__ = (sa.Index("ix_workers_live", "ended_at", "supervisor_id"),)


class Upkeep(Base):
    """One kind of row that retention removes: when it last looked, and how many it has removed so far."""

    __tablename__ = "upkeep"

    what: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    """The table's name."""
    last_run_at: Mapped[datetime]
    removed: Mapped[int] = mapped_column(sa.BigInteger, default=0)
