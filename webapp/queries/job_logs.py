"""The SELECTs of the job list and of one job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.queries.paging import Cursor, Order, Page, cut
from webapp.queries.views import JobView, job_view
from worker.db.base import utc_now
from worker.db.session import Database
from worker.joblogs.conditions import Conditions, conditions
from worker.joblogs.models import JobLog
from worker.joblogs.search import JobFilter
from worker.jobs.models import JobCatalogue
from worker.process.models import Worker

SORTS = {"enqueued": "Enqueued", "started": "Started", "completed": "Completed", "duration": "Duration"}
SORT_WINDOW = 5_000
"""A sort without an index looks at this many of the newest matching jobs."""
MOST_BRANCHES = 24
SCAN_CHUNK = 5_000
SCAN_BUDGET_S = 0.2
"""A search without an index goes back chunk by chunk for this long, then hands out a cursor."""
LATE_AFTER_S = 300.0
LIST_ARGS_BYTES = 8_000
LIST_ERROR_LENGTH = 400

_WIDE = ("args", "result", "error", "traceback", "checkpoint")
_NARROW = [column for column in JobLog.__table__.c if column.key not in _WIDE]


async def list_jobs(
    connection: AsyncConnection,
    wanted: JobFilter,
    sort: str = "enqueued",
    cursor: str | None = None,
    limit: int = 50,
    *,
    late_after_s: float = LATE_AFTER_S,
) -> Page[JobView]:
    """One page of the jobs that `wanted` describes, newest (or longest) first.

    Raises:
        Invalid: the cursor is not one that this list gave.
    """
    query = _Query(connection, wanted, sort, Cursor.parse(cursor) if cursor else None, limit, late_after_s)
    if wanted.problems:
        return Page([])
    rows, searched_to = await query.rows()
    if not rows and searched_to is None and query.cursor and query.cursor.direction != "older":
        return await list_jobs(connection, wanted, sort, None, limit, late_after_s=late_after_s)
    page, older, newer = cut(rows, limit, query.cursor, query.key)
    if searched_to is not None:
        older = str(Cursor("older", searched_to.id))
    begin = str(Cursor("from", *query.key(page[0]))) if page else None
    views = [job_view(row) for row in page]
    return Page(views, older, newer, searched_to.enqueued_at if searched_to is not None else None, begin)


@dataclass(frozen=True, slots=True)
class _Query:
    connection: AsyncConnection
    wanted: JobFilter
    sort: str
    cursor: Cursor | None
    limit: int
    late_after_s: float

    @property
    def dialect(self) -> str:
        return self.connection.dialect.name

    @property
    def conditions(self) -> Conditions:
        return conditions(self.wanted, self.dialect, utc_now() - timedelta(seconds=self.late_after_s))

    @property
    def order(self) -> Order:
        if self.sort == "started":
            return Order(JobLog.id, JobLog.started_at, datetime.fromisoformat)
        if self.sort == "completed":
            return Order(JobLog.id, JobLog.completed_at, datetime.fromisoformat)
        if self.sort == "duration":
            return Order(JobLog.id, _duration(self.dialect), float)
        return Order(JobLog.id)

    def key(self, row: sa.Row[Any]) -> tuple[UUID, str]:
        if self.sort not in ("started", "completed", "duration"):
            return row.id, ""
        value = row.sort_value
        return row.id, value.isoformat() if isinstance(value, datetime) else repr(value)

    async def rows(self) -> tuple[Sequence[sa.Row[Any]], sa.Row[Any] | None]:
        if self.order.column is None and self.wanted.scans:
            return await self._scan()
        return (await self.connection.execute(self.select())).all(), None

    def select(self) -> sa.Select[Any]:
        ascending = self.cursor is not None and self.cursor.direction == "newer"
        found, order = self.conditions, self.order
        statement = list_columns(self.dialect).order_by(*order.by(ascending=ascending)).limit(self.limit + 1)
        if self.cursor:
            statement = statement.where(order.beyond(self.cursor))
        if order.column is None and len(branches := self._branches()) > 1:
            each = [sa.select(self._ids_of(branch, ascending=ascending)) for branch in branches]
            statement = statement.where(JobLog.id.in_(sa.union_all(*each)))
        elif order.column is None or (self.sort == "completed" and self._unfiltered):
            statement = statement.where(*found.indexed, *found.scanned)
        else:
            newest = sa.select(JobLog.id).where(*found.indexed).order_by(JobLog.id.desc()).limit(SORT_WINDOW)
            statement = statement.where(JobLog.id.in_(newest), *found.scanned)
        if order.column is not None:
            statement = statement.add_columns(order.column.label("sort_value")).where(
                order.column.is_not(None)
            )
        return statement

    def _branches(self) -> list[JobFilter]:
        """The filter for each combination of what it lets be one of several: an index then gives each in order."""
        wanted = self.wanted
        choices = [((s,) if s else (), (q,) if q else (), (j,) if j else ())
                   for s in wanted.statuses or ("",) for q in wanted.queues or ("",) for j in wanted.jobs or ("",)]  # fmt: skip
        if len(choices) > MOST_BRANCHES:
            return [wanted]
        return [replace(wanted, statuses=s, queues=q, jobs=j) for s, q, j in choices]

    def _ids_of(self, branch: JobFilter, *, ascending: bool) -> sa.Subquery:
        late_before = utc_now() - timedelta(seconds=self.late_after_s)
        ids = sa.select(JobLog.id).where(*conditions(branch, self.dialect, late_before).indexed)
        if self.cursor:
            ids = ids.where(self.order.beyond(self.cursor))
        return ids.order_by(*self.order.by(ascending=ascending)).limit(self.limit + 1).subquery()

    @property
    def _unfiltered(self) -> bool:
        return self.wanted.empty

    async def _scan(self) -> tuple[Sequence[sa.Row[Any]], sa.Row[Any] | None]:
        """Looks at the candidates chunk by chunk until the page is full, none are left, or the time is up.

        Answers the rows and, when the time was up, the last candidate that was looked at."""
        ascending = self.cursor is not None and self.cursor.direction == "newer"
        rows: list[sa.Row[Any]] = []
        cursor, deadline = self.cursor, time.monotonic() + SCAN_BUDGET_S
        while True:
            last = await self._chunk_end(cursor, ascending=ascending)
            rows += await self._chunk(cursor, last, self.limit + 1 - len(rows), ascending=ascending)
            if last is None or len(rows) > self.limit:
                return rows, None
            cursor = Cursor("newer" if ascending else "older", last.id)
            if time.monotonic() > deadline and not ascending:
                return rows, last

    async def _chunk_end(self, cursor: Cursor | None, *, ascending: bool) -> sa.Row[Any] | None:
        """The last of the next SCAN_CHUNK candidates; None when fewer are left."""
        candidates = sa.select(JobLog.id, JobLog.enqueued_at).where(
            *self.conditions.indexed, *self._narrowing()
        )
        if cursor:
            candidates = candidates.where(self.order.beyond(cursor))
        candidates = candidates.order_by(*self.order.by(ascending=ascending)).limit(SCAN_CHUNK)
        chunk = candidates.subquery()
        ends = sa.select(chunk, sa.func.count().over().label("n"))
        last = chunk.c.id.desc() if ascending else chunk.c.id.asc()
        row = (await self.connection.execute(ends.order_by(last).limit(1))).first()
        return row if row is not None and row.n == SCAN_CHUNK else None

    async def _chunk(
        self, cursor: Cursor | None, last: sa.Row[Any] | None, limit: int, *, ascending: bool
    ) -> Sequence[sa.Row[Any]]:
        found = self.conditions
        statement = list_columns(self.dialect).where(*found.indexed, *self._narrowing(), *found.scanned)
        if cursor:
            statement = statement.where(self.order.beyond(cursor))
        if last is not None:
            statement = statement.where(JobLog.id <= last.id if ascending else JobLog.id >= last.id)
        statement = statement.order_by(*self.order.by(ascending=ascending)).limit(limit)
        return (await self.connection.execute(statement)).all()

    def _narrowing(self) -> list[sa.ColumnElement[bool]]:
        """A search in errors looks only at the rows that have one: they have a small index of their own."""
        return [JobLog.error.is_not(None)] if self.wanted.errors else []


async def newer_count(
    connection: AsyncConnection, wanted: JobFilter, begin: str, sort: str = "enqueued", cap: int = 100
) -> int:
    """How many matching jobs stand before the page that begins there, counted up to `cap`; a search without index counts none."""
    if wanted.scans or wanted.problems:
        return 0
    first = replace(Cursor.parse(begin), direction="newer")
    query = _Query(connection, wanted, sort, first, cap - 1, LATE_AFTER_S)
    before = query.select().with_only_columns(sa.literal(1)).subquery()
    return await connection.scalar(sa.select(sa.func.count()).select_from(before)) or 0


async def one_job(connection: AsyncConnection, job_id: UUID) -> JobView | None:
    """The whole job, or None; a deleted one can still be read by its id, until it is purged."""
    statement = whole_columns().where(JobLog.id == job_id)
    row = (await connection.execute(statement)).first()
    return job_view(row) if row is not None else None


async def load_jobs(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, JobView]:
    """The jobs with these ids as the list shows them, in one SELECT; missing and deleted ones are absent."""
    statement = list_columns(connection.dialect.name).where(JobLog.id.in_(ids), JobLog.deleted_at.is_(None))
    return {row.id: job_view(row) for row in await connection.execute(statement)}


async def load_whole_jobs(connection: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, JobView]:
    """The jobs with these ids with all they hold, in one SELECT."""
    statement = whole_columns().where(JobLog.id.in_(ids))
    return {row.id: job_view(row) for row in await connection.execute(statement)}


async def stream_jobs(
    database: Database, wanted: JobFilter, chunk: int = 500, *, late_after_s: float = LATE_AFTER_S
) -> AsyncIterator[Sequence[JobView]]:
    """Every matching job, newest first, in chunks: a connection is held only while one is fetched."""
    cursor: Cursor | None = None
    late_before = utc_now() - timedelta(seconds=late_after_s)
    if wanted.problems:
        return
    while True:
        async with database.read() as connection:
            found = conditions(wanted, connection.dialect.name, late_before)
            statement = (
                whole_columns().where(*found.indexed, *found.scanned).order_by(JobLog.id.desc()).limit(chunk)
            )
            if cursor:
                statement = statement.where(Order(JobLog.id).beyond(cursor))
            rows = (await connection.execute(statement)).all()
        if rows:
            yield [job_view(row) for row in rows]
        if len(rows) < chunk:
            return
        cursor = Cursor("older", rows[-1].id)


# Columns


_EXTRAS = (
    Worker.host.label("worker_host"),
    Worker.pid.label("worker_pid"),
    JobCatalogue.parameters[(0, "name")].as_string().label("first_parameter"),
)


def list_columns(dialect: str) -> sa.Select[Any]:
    """What a row of the list shows: long arguments and errors are not even read."""
    size = sa.func.length(JobLog.args) if dialect == "sqlite" else sa.func.pg_column_size(JobLog.args)
    args = sa.case((size <= LIST_ARGS_BYTES, JobLog.args)).label("args")
    error = sa.func.substr(JobLog.error, 1, LIST_ERROR_LENGTH).label("error")
    return _joined(sa.select(*_NARROW, args, error, *_EXTRAS))


def whole_columns() -> sa.Select[Any]:
    """Everything a job holds."""
    return _joined(sa.select(JobLog.__table__, *_EXTRAS))


def _joined(statement: sa.Select[Any]) -> sa.Select[Any]:
    return (
        statement.select_from(JobLog)
        .outerjoin(Worker, Worker.id == JobLog.worker_id)
        .outerjoin(JobCatalogue, JobCatalogue.name == JobLog.job_name)
    )


def _duration(dialect: str) -> sa.ColumnElement[float]:
    """Seconds from start to end, as the database computes it."""
    if dialect == "sqlite":
        start, end = sa.func.julianday(JobLog.started_at), sa.func.julianday(JobLog.completed_at)
        return sa.cast((end - start) * 86_400.0, sa.Float)
    span = sa.extract("epoch", sa.cast(JobLog.completed_at - JobLog.started_at, postgresql.INTERVAL))
    return sa.cast(span, postgresql.DOUBLE_PRECISION)
