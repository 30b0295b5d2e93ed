"""A database with a reception that knows two jobs, and a recorder that may run them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.session import Database, Pending
from worker.errors import Invalid
from worker.joblogs import actions
from worker.joblogs.claims import Claimed, Scope
from worker.joblogs.enqueue import Reception
from worker.joblogs.models import JobAttempt, JobLog
from worker.joblogs.recorder import Recorder
from worker.process.models import Worker
from worker.settings import Settings

ADA = Actor("ada", role="operator")


class Offer:
    """A job that takes anything but `bad`."""

    max_retries: int | None = None
    timeout_s: float | None = None
    fields = ()

    def __init__(self, name: str, queue: str) -> None:
        self.name, self.queue = name, queue

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        if "bad" in args:
            raise Invalid({"bad": "it is not allowed"})
        return args


class Offers:
    """What the reception looks names up in."""

    def __init__(self) -> None:
        self.known = {"add": Offer("add", "default"), "mail": Offer("mail", "mail")}

    async def get(self, session: object, name: str) -> Offer | None:
        return self.known.get(name)


class Bench:
    """The slice under test: a database, what was told after commits, and shortcuts."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.told: list[Pending] = []
        self.recorders: list[Recorder] = []

    async def listen(self, pending: Pending) -> None:
        self.told.append(pending)

    async def enqueue(self, name: str = "add", args: dict[str, Any] | None = None, **options: Any) -> JobLog:
        async with self.database.transaction() as session:
            return await actions.enqueue(session, name, args or {}, **options)

    async def row(self, job_id: UUID) -> JobLog:
        async with self.database.session() as session:
            return await actions.one(session, job_id)

    async def attempts(self, job_id: UUID) -> list[JobAttempt]:
        import sqlalchemy as sa

        async with self.database.session() as session:
            found = await session.scalars(
                sa.select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.epoch)
            )
            return list(found)

    async def recorder(
        self, names: tuple[str, ...] = ("add", "mail"), *, started_at: datetime | None = None
    ) -> Recorder:
        """A recorder with a living worker row."""
        worker_id = new_id()
        async with self.database.transaction() as session:
            session.add(
                Worker(
                    id=worker_id,
                    kind="worker",
                    host="here",
                    pid=1,
                    beat_at=utc_now(),
                    started_at=started_at or utc_now(),
                    jobs=list(names),
                    queues=["default", "mail"],
                )
            )
        recorder = Recorder(self.database, worker_id, Scope(names, ("default", "mail")), lease_s=2)
        self.recorders.append(recorder)
        return recorder

    async def running(self, recorder: Recorder, **options: Any) -> Claimed:
        """A job that `recorder` has claimed."""
        claimed = await recorder.claim((await self.enqueue(**options)).id)
        assert claimed is not None
        return claimed

    async def events(self) -> list[str]:
        """The types of all events recorded so far, oldest first."""
        import sqlalchemy as sa

        from worker.events.models import OutboxRow

        async with self.database.session() as session:
            rows = await session.scalars(sa.select(OutboxRow).order_by(OutboxRow.id))
            return [event["event_type"] for row in rows for event in row.events]


def goes_away_after(monkeypatch: pytest.MonkeyPatch, bench: Bench, transactions: int) -> None:
    """From now on the database serves so many transactions, and no more."""
    transaction, left = bench.database.transaction, transactions

    @asynccontextmanager
    async def served() -> AsyncIterator[AsyncSession]:
        nonlocal left
        if left == 0:
            raise OSError("the database is away")
        left -= 1
        async with transaction() as session:
            yield session

    monkeypatch.setattr(bench.database, "transaction", served)


@pytest.fixture
async def bench(database_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    database = Database(database_url)
    settings = Settings.from_env(
        {"DATABASE_URL": database_url, "M_HOME": str(tmp_path), "M_QUEUE_MAX_DEPTH": "50"}
    )
    database.info["reception"] = Reception(Offers(), settings)
    bench = Bench(database)
    database.on_commit = bench.listen
    yield bench
    for recorder in bench.recorders:  # what it would ring for later must not meet a loop that is closed
        await recorder.next_starts.close()
    await database.close()
