"""SQLite as a database of several processes: durable commits, a write lock that all who wait have the same chance of, files that are let go of."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

BEGIN = "BEGIN IMMEDIATE"
LOOKS_EVERY_S = 0.001


def make_private_file(path: Path) -> None:
    """What it holds is nobody else's on this machine; SQLite gives its -wal and -shm files the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def patient(lock_timeout_s: float) -> type[sqlite3.Connection]:
    """A class of connections that look for the write lock every millisecond, for `lock_timeout_s` at most.

    SQLite's own busy handler pauses ever longer, up to 100 ms, so whoever has waited longest looks least often
    (sqlite3's main.c, sqliteDefaultBusyCallback).
    """

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, parameters: Any = (), /) -> Cursor:
            if statement != BEGIN:
                super().execute(statement, parameters)
                return self
            self._set_busy_timeout(0)
            try:
                self._begin(lock_timeout_s)
            finally:
                self._set_busy_timeout(lock_timeout_s)
            return self

        def _set_busy_timeout(self, seconds: float) -> None:
            """By a cursor of its own: what this one ran last is what SQLAlchemy asks it about."""
            sqlite3.Cursor(self.connection).execute(_busy_timeout(seconds)).close()

        def _begin(self, patience_s: float) -> None:
            """Counts its own pauses, as SQLite does: a machine that stood still in between used up nobody's patience."""
            while True:
                try:
                    super().execute(BEGIN)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or patience_s <= 0:
                        raise
                else:
                    return
                pause_s = LOOKS_EVERY_S * random.uniform(0.5, 1.5)
                time.sleep(pause_s)
                patience_s -= pause_s

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return Connection


def prepare(
    engine: AsyncEngine, lock_timeout_s: float, follow: Callable[[asyncio.Future[Any]], None]
) -> None:
    """WAL with a full sync at each commit; transactions take the write lock at their start, so none fails late."""

    @event.listens_for(engine.sync_engine, "connect")
    def _pragmas(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        cursor.execute(_busy_timeout(lock_timeout_s))
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-16000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "connect")
    def _close_ends(dbapi: Any, _record: Any) -> None:
        _stop_once(dbapi.driver_connection, follow)

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("no_begin"):
            connection.exec_driver_sql(BEGIN)

    @event.listens_for(engine.sync_engine, "reset")
    def _reset(dbapi: Any, _record: Any, _state: Any) -> None:
        if dbapi.driver_connection is not None and dbapi.driver_connection.in_transaction:
            dbapi.rollback()  # a failed COMMIT leaves SQLite's transaction open


def _stop_once(connection: Any, follow: Callable[[asyncio.Future[Any]], None]) -> None:
    """Makes closing a connection that is being given up end: aiosqlite waits for a second stop for ever.

    Its thread ends at the first stop, and a task that is cancelled in a statement makes SQLAlchemy stop the connection
    while the pool may be closing it. Nobody waits for that first stop, so whoever follows is told.
    """
    stop = connection.stop

    def once() -> Any:
        connection.stop = lambda: None
        stopped = stop()
        if stopped is not None:
            follow(stopped)
        return stopped

    connection.stop = once


def _busy_timeout(seconds: float) -> str:
    return f"PRAGMA busy_timeout={int(seconds * 1000)}"
