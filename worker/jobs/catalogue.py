"""What workers offer to run: read by everyone who enqueues, advertised by the workers themselves."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import utc_now
from worker.db.session import Database, changed
from worker.jobs import limits
from worker.jobs.fields import Field
from worker.jobs.job import Job
from worker.jobs.models import JobCatalogue, Queue
from worker.jobs.registry import Registry
from worker.jobs.schema import ArgsValidator

CACHE_S = 1.0
COLUMNS: tuple[Any, ...] = (
    JobCatalogue.name, JobCatalogue.queue, JobCatalogue.max_retries, JobCatalogue.timeout_s, JobCatalogue.parameters,
    JobCatalogue.args_schema, JobCatalogue.retry, JobCatalogue.on_lost, JobCatalogue.paused_at, JobCatalogue.doc,
    JobCatalogue.fingerprint,
)  # fmt: skip


@dataclass(frozen=True)
class JobOffer:
    """As much of a job as one must know to enqueue it. Made from the code, or from what a worker advertised of it."""

    name: str
    queue: str
    max_retries: int | None
    timeout_s: float | None
    fields: tuple[Field, ...]
    args_schema: dict[str, Any]
    retry: dict[str, Any]
    on_lost: str = "restart"
    paused: bool = False
    doc: str = ""
    fingerprint: str = ""
    job: Job | None = None

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """The arguments, unchanged, if they fit.

        Raises:
            Invalid: naming each argument that is missing, unknown or wrong, and what is allowed.
        """
        if self.job is not None:
            return self.job.validate(args)
        limits.dump(args)
        self._validator.check(args, self.name)
        return args

    @cached_property
    def _validator(self) -> ArgsValidator:
        return ArgsValidator(self.args_schema)


class Catalogue:
    """Offers by name: from this process's registry, else from the table, remembered for a second."""

    def __init__(
        self,
        database: Database,
        registry: Registry | None = None,
        *,
        max_retries: int = 3,
        timeout_s: float = 300.0,
    ) -> None:
        self._database = database
        self._registry = Registry() if registry is None else registry
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._seen: dict[str, tuple[float, JobOffer | None]] = {}
        self._own: dict[str, JobOffer] = {}
        self._advertised = False

    async def get(self, session: AsyncSession | None, name: str) -> JobOffer | None:
        """The offer called `name`; with a session it is read through that one's connection."""
        if name in self._own:
            return self._own[name]
        if job := self._registry.get(name):
            return self._own.setdefault(name, _from_code(job))
        at, offer = self._seen.get(name, (float("-inf"), None))
        if time.monotonic() - at > CACHE_S:
            offer = _same(offer, await self._read(session, name))
            if len(self._seen) >= 10_000:  # names that nobody offers, asked for by a stranger
                self._seen.clear()
            self._seen[name] = (time.monotonic(), offer)
        return offer

    async def all(self) -> list[JobOffer]:
        """Every job that was ever advertised, and this process's own, by name."""
        async with self._database.read() as connection:
            rows = (await connection.execute(sa.select(*COLUMNS))).all()
        offers = {row.name: _from_row(row) for row in rows} | {
            job.name: _from_code(job) for job in self._registry
        }
        return [offers[name] for name in sorted(offers)]

    async def advertise(self, registry: Registry, worker_id: UUID) -> None:
        """Writes what `registry` offers: all of it the first time, afterwards only that it is still offered.

        So that, while a deploy rolls, an old worker's refresh never overwrites what a new one has said.
        """
        now = utc_now()
        rows = {
            job.name: job.catalogue_row(max_retries=self._max_retries, timeout_s=self._timeout_s)
            for job in registry
        }
        async with self._database.transaction() as session:
            known = await _fingerprints(session, rows)
            await _insert(session, [row for name, row in rows.items() if name not in known], now)
            if not self._advertised:
                differs = [
                    row
                    for name, row in rows.items()
                    if known.get(name, row["fingerprint"]) != row["fingerprint"]
                ]
                await _update(session, differs)
            await _touch(session, rows.values(), now)
        self._advertised = True

    async def _read(self, session: AsyncSession | None, name: str) -> JobOffer | None:
        statement = sa.select(*COLUMNS).where(JobCatalogue.name == name)
        if session is not None:
            row = (await session.execute(statement)).one_or_none()
        else:
            async with self._database.read() as connection:
                row = (await connection.execute(statement)).one_or_none()
        return None if row is None else _from_row(row)


def _same(before: JobOffer | None, after: JobOffer | None) -> JobOffer | None:
    """The older object if nothing changed: its validator is compiled already."""
    return before if before == after else after


def _from_code(job: Job) -> JobOffer:
    return JobOffer(
        name=job.name, queue=job.queue, max_retries=job.max_retries, timeout_s=job.timeout_s, fields=job.fields,
        args_schema=job.parameters.schema, retry=job.retry.as_json(), on_lost=job.on_lost, doc=job.doc, job=job,
    )  # fmt: skip


def _from_row(row: sa.Row[Any]) -> JobOffer:
    return JobOffer(
        name=row.name, queue=row.queue, max_retries=row.max_retries, timeout_s=row.timeout_s,
        fields=tuple(Field.from_json(each) for each in row.parameters or ()), args_schema=row.args_schema or {},
        retry=row.retry or {}, on_lost=row.on_lost, paused=row.paused_at is not None, doc=row.doc,
        fingerprint=row.fingerprint,
    )  # fmt: skip


async def _fingerprints(session: AsyncSession, names: Collection[str]) -> dict[str, str]:
    """What is known already, its rows locked in the order of their names."""
    statement = (
        sa.select(JobCatalogue.name, JobCatalogue.fingerprint)
        .where(JobCatalogue.name.in_(names))
        .order_by(JobCatalogue.name)
        .with_for_update()
    )
    return {row.name: row.fingerprint for row in await session.execute(statement)}


async def _insert(session: AsyncSession, rows: Sequence[dict[str, Any]], now: datetime) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    for row in rows:  # another worker may be saying the same at this moment
        first: Any = insert(JobCatalogue).values(**row, first_seen_at=now, advertised_at=now, rev=1)
        await session.execute(first.on_conflict_do_nothing())
        changed(session, "catalogue", row["name"], 1)
    for name in sorted({row["queue"] for row in rows}):
        await session.execute(insert(Queue).values(name=name, created_at=now, rev=1).on_conflict_do_nothing())


async def _update(session: AsyncSession, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        rev = await session.scalar(
            sa.update(JobCatalogue)
            .where(JobCatalogue.name == row["name"])
            .values(**row, rev=JobCatalogue.rev + 1)
            .returning(JobCatalogue.rev)
            .execution_options(synchronize_session=False)
        )
        if rev is not None:
            changed(session, "catalogue", row["name"], rev)


async def _touch(session: AsyncSession, rows: Iterable[dict[str, Any]], now: datetime) -> None:
    """Says that exactly these versions are still offered."""
    for row in rows:
        await session.execute(
            sa.update(JobCatalogue)
            .where(JobCatalogue.name == row["name"], JobCatalogue.fingerprint == row["fingerprint"])
            .values(advertised_at=now)
            .execution_options(synchronize_session=False)
        )
