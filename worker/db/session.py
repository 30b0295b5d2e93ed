"""Database engines, sessions, and what happens around a commit: the outbox row before it, the rings after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from worker.db import half_open
from worker.db.base import new_id, utc_now
from worker.events.models import OutboxRow

log = structlog.get_logger(__name__)


PASSING = ("08", "40", "53", "55P03", "57")
"""Beginnings of SQLSTATEs that pass: lost connections, deadlocks, too few resources, locks, a server on its way down or up."""


def will_pass(error: DBAPIError) -> bool:
    """Whether the database and not the statement is to blame, so that the same statement may succeed a little later."""
    if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return True
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(PASSING)


@dataclass(slots=True)
class Pending:
    """What a transaction will tell the world if it commits."""

    events: list[dict[str, Any]] = field(default_factory=list)
    changes: dict[tuple[str, str], int] = field(default_factory=dict)
    rings: list[Doorbell] = field(default_factory=list)
    signals: list[tuple[UUID, dict[str, Any]]] = field(default_factory=list)
    outbox_ids: list[UUID] = field(default_factory=list)
    marks: dict[SessionTransaction, int] = field(default_factory=dict)
    """How many events there were when a savepoint began."""


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A hint to a queue's workers that a job may be ready. Losing it delays the job, nothing else."""

    job_id: UUID
    queue: str
    priority: int = 5
    rescue: bool = False


class CommitListener(Protocol):
    """Who is told after a commit: rings the doorbells and announces the changes. It must not raise."""

    def __call__(self, pending: Pending) -> Awaitable[None]: ...


_CLOCK = sa.text("SELECT clock_timestamp()")


class Database:
    """One process's access to the database. `clock` replaces the time that every action goes by, for simulations."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        lock_timeout_s: float = 5.0,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.url = url
        self.dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[Any]] = set()
        """Connections that were given up in the middle of a statement, until their files are closed."""
        self.engine = _make_engine(url, pool_size, lock_timeout_s, self._follow)
        self.clock = clock or (utc_now if self.dialect == "sqlite" else None)
        """Where this process's time comes from; None means the server's own clock."""
        self.on_commit: CommitListener | None = None
        self.info: dict[str, Any] = {"database": self}
        """What every session of this database carries in its `info`."""
        self._turn = asyncio.Lock()
        self._lock_timeout_s = lock_timeout_s
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, info=self.info)

    def session(self) -> AsyncSession:
        """A session whose events, changes and rings go out when it commits. Use it as a context manager."""
        return self._sessions()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction: committed at the end, rolled back by an exception."""
        async with self._in_turn(), self._sessions() as session, session.begin():
            yield session

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """On SQLite the transactions of a process line up, because SQLite serves those who wait for its lock by chance.

        Nobody waits for longer than SQLite itself would let them: then they take their chance.
        """
        mine = False
        if self.dialect == "sqlite":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lock_timeout_s):
                    mine = await self._turn.acquire()
        try:
            yield
        finally:
            if mine:
                self._turn.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for SELECTs, outside any write lock."""
        async with self.engine.connect() as connection:
            options = {"no_begin": True} if self.dialect == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
            yield await connection.execution_options(**options)

    def patience(self) -> asyncio.Timeout:
        """Bounds a worker's own short statements where the other end may vanish in the middle of one: a TimeoutError."""
        return asyncio.timeout(None if self.dialect == "sqlite" else half_open.UNANSWERED_MS / 1000)

    async def any(self, table: Any, *where: sa.ColumnElement[bool]) -> bool:
        """Whether such a row exists; asked outside any lock, so that a loop with nothing to do locks nothing."""
        async with self.read() as connection:
            found = sa.select(sa.literal(1)).select_from(table).where(*where).limit(1)
            return (await connection.execute(found)).first() is not None

    async def now(self, session: AsyncSession | AsyncConnection) -> datetime:
        """The instant all processes agree on: the server's on PostgreSQL, this machine's on SQLite."""
        if self.clock is not None:
            return self.clock()
        at: datetime = (await session.execute(_CLOCK)).scalar_one()
        return at

    async def settle(self) -> None:
        """Waits, two seconds at most, for the announcements of what was committed."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    async def close(self) -> None:
        """Settles and closes every connection; one whose other end is gone never says good-bye, and all are let go."""
        await self.settle()
        try:
            async with asyncio.timeout(half_open.ANSWER_S):
                await self.engine.dispose()
        except TimeoutError:
            await self.engine.dispose(close=False)
        if self._closing:
            await asyncio.wait(self._closing, timeout=self._lock_timeout_s)

    def committed(self, pending: Pending) -> None:
        """Tells the listener, without holding up whoever committed."""
        if self.on_commit is None:
            return
        task = asyncio.ensure_future(self.on_commit(pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _follow(self, closing: asyncio.Future[Any]) -> None:
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


# What an action says inside its transaction


def emit(session: AsyncSession, event_type: str, data: dict[str, Any], user_id: str | None = None) -> None:
    """Records an event: it becomes part of the transaction's one outbox row."""
    record(
        session.sync_session,
        {
            "event_id": str(new_id()),
            "event_type": event_type,
            "timestamp": utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "user_id": user_id,
            "data": data,
        },
    )


def record(session: SyncSession, event: dict[str, Any]) -> None:
    """`emit` for an event that is made already, as `BaseEvent.as_json()` gives it."""
    _pending_of(session).events.append(event)


def recorded(session: AsyncSession, outbox_id: UUID) -> None:
    """Notes an outbox row that the transaction wrote itself; it is announced like the others."""
    _pending(session).outbox_ids.append(outbox_id)


def changed(session: AsyncSession, kind: str, key: object, rev: int) -> None:
    """Notes that what is shown under (kind, key) has a new revision; browsers re-read it after the commit."""
    _pending(session).changes[(kind, str(key))] = rev


def ring(session: AsyncSession, doorbells: Iterable[Doorbell]) -> None:
    """Rings these doorbells after the commit."""
    _pending(session).rings.extend(doorbells)


def signal(session: AsyncSession, worker_id: UUID, message: dict[str, Any]) -> None:
    """Sends a control message to a worker after the commit; the worker's beat carries the sure answer."""
    _pending(session).signals.append((worker_id, message))


async def now_of(session: AsyncSession) -> datetime:
    """`Database.now` for an action that was given a session: a wrong clock of one process never dates a job."""
    database: Database = session.sync_session.info["database"]
    return await database.now(session)


def _pending(session: AsyncSession) -> Pending:
    return _pending_of(session.sync_session)


def _pending_of(session: SyncSession) -> Pending:
    pending: Pending | None = session.info.get("pending")
    if pending is None:
        pending = session.info["pending"] = Pending()
    return pending


@event.listens_for(SyncSession, "before_commit")
def _write_outbox(session: SyncSession) -> None:
    """What the last flush says belongs to it too. A savepoint's events wait for the end of the transaction."""
    if session.in_nested_transaction():
        return
    session.flush()
    pending: Pending | None = session.info.get("pending")
    if pending is None or not pending.events:
        return
    row_id = new_id()
    for each in pending.events:  # a document's own event does not know who acted
        if each["user_id"] is None and "doctype" in each:
            each["user_id"] = session.info.get("acting")
    session.execute(
        sa.insert(OutboxRow), [{"id": row_id, "events": list(pending.events), "created_at": utc_now()}]
    )
    pending.outbox_ids.append(row_id)
    pending.events.clear()


@event.listens_for(SyncSession, "after_commit")
def _announce(session: SyncSession) -> None:
    if session.in_nested_transaction():  # a savepoint: nobody else can see it yet
        return
    pending: Pending | None = session.info.pop("pending", None)
    database: Database | None = session.info.get("database")
    if pending is not None and database is not None:
        database.committed(pending)


@event.listens_for(SyncSession, "after_rollback")
def _forget(session: SyncSession) -> None:
    if session.in_nested_transaction():  # only back to a savepoint
        return
    session.info.pop("pending", None)


@event.listens_for(SyncSession, "after_transaction_create")
def _mark(session: SyncSession, transaction: SessionTransaction) -> None:
    if transaction.nested:
        pending = _pending_of(session)
        pending.marks[transaction] = len(pending.events)


@event.listens_for(SyncSession, "after_soft_rollback")
def _forget_back_to_the_mark(session: SyncSession, transaction: SessionTransaction) -> None:
    """What was undone to a savepoint did not happen. Its rings and changes are only hints."""
    pending: Pending | None = session.info.get("pending")
    if pending is not None and transaction in pending.marks:
        del pending.events[pending.marks.pop(transaction) :]


# Engines


def _make_engine(
    url: str, pool_size: int, lock_timeout_s: float, follow: Callable[[asyncio.Future[Any]], None]
) -> AsyncEngine:
    """`follow` is told of each connection that closes with nobody waiting for it."""
    if not url.startswith("sqlite"):
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=5,
            pool_timeout=10,
            pool_use_lifo=True,  # the connection that served last has its statements prepared
            connect_args={"async_creator_fn": _connect, "timeout": half_open.CONNECT_S},
        )
        half_open.watch(engine.sync_engine)
        return engine
    from worker.db import sqlite  # only where it is used: it loads sqlite3

    database = make_url(url).database or ""
    if database and database != ":memory:":
        sqlite.make_private_file(Path(database))
    engine = create_async_engine(
        url, pool_size=pool_size, pool_use_lifo=True, connect_args={"factory": sqlite.patient(lock_timeout_s)}
    )
    sqlite.prepare(engine, lock_timeout_s, follow)
    return engine


async def _connect(*args: Any, **options: Any) -> Any:
    """asyncpg's own errors at connect are neither SQLAlchemy's nor the system's, so nobody would wait for them to pass."""
    import asyncpg

    try:
        return await asyncpg.connect(*args, **options)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(PASSING):
            raise ConnectionError(f"PostgreSQL does not accept connections just now: {error}") from error
        raise
