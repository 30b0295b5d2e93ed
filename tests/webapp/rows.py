"""Puts rows into the tables the way the engine leaves them, without running an engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from worker.db.base import utc_now
from worker.db.session import Database
from worker.joblogs.conditions import id_at
from worker.joblogs.models import JobCounter, JobLog
from worker.jobs.models import JobCatalogue
from worker.process.models import Worker


@dataclass
class Rows:
    database: Database
    made: int = 0

    def job(self, name: str = "send_email", status: str = "success", **fields: Any) -> dict[str, Any]:
        """A job's columns; `ago_s` sets when it was enqueued."""
        self.made += 1
        at = utc_now() - timedelta(seconds=fields.pop("ago_s", 60))
        started = (
            at + timedelta(seconds=1) if status in ("running", "success", "failed", "cancelled") else None
        )
        ended = at + timedelta(seconds=3) if status in ("success", "failed", "cancelled") else None
        values = {
            "id": UUID(int=id_at(at).int | self.made << 20),
            "job_name": name,
            "queue": "default",
            "priority": 5,
            "status": status,
            "args": {"to": "ada@example.com"},
            "enqueued_at": at,
            "run_at": at,
            "started_at": started,
            "completed_at": ended,
            "attempt": 1 if started else 0,
            "max_retries": 3,
            "timeout_s": 300.0,
            "epoch": 1,
            "rev": 1,
            "lost_count": 0,
            "lane": "normal",
            "tags": [],
        }
        if status == "failed":
            values |= {"error": "ValueError: no such address", "error_fingerprint": "f" * 32}
        return values | fields

    async def add(self, *jobs: dict[str, Any]) -> list[UUID]:
        """Inserts them, with the counters that belong to them."""
        counts = Counter((job["job_name"], job["queue"], job["status"]) for job in jobs)
        async with self.database.transaction() as session:
            for job in jobs:
                await session.execute(sa.insert(JobLog).values(**job))
            for (name, queue, status), n in counts.items():
                key = {"job_name": name, "queue": queue, "status": status}
                row = await session.get(JobCounter, key)
                if row is None:
                    session.add(JobCounter(**key, n=n))
                else:
                    row.n += n
        return [job["id"] for job in jobs]

    async def offer(self, name: str, **fields: Any) -> None:
        """A row of the catalogue."""
        now = datetime.now(UTC)
        values = {
            "module": "shop.jobs",
            "queue": "default",
            "first_seen_at": now,
            "advertised_at": now,
            "rev": 1,
        }
        async with self.database.transaction() as session:
            session.add(JobCatalogue(**(values | {"name": name} | fields)))

    async def worker(self, **fields: Any) -> UUID:
        now = utc_now()
        values = {
            "id": uuid4(), "kind": "worker", "host": "box", "pid": 41, "queues": ["default"], "jobs": ["send_email"],
            "slots": 10, "beat_at": now, "started_at": now,
        }  # fmt: skip
        values |= fields
        async with self.database.transaction() as session:
            session.add(Worker(**values))
        return values["id"]
