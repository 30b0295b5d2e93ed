"""`m doctor`: looks at everything a desk stands on and says what would hurt it."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.commands.output import printable, say, say_json
from worker.commands.setting import desk_settings, first_line, log_warnings

if TYPE_CHECKING:
    from worker.db.session import Database
    from worker.settings import Settings

CLOCK_SLACK_S = 2.0
BROKER_LOOKS = 60
"""It connects in the background; three seconds are enough where one answers."""
OLDEST_REDIS = (6, 2)
MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fail` makes the command exit 1, `warn` does not."""

    about: str
    state: Literal["ok", "warn", "fail"]
    text: str


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Checks keys, database, migrations, clock, standbys, broker and workers; exit 1 when something is broken."""
    settings = desk_settings()
    log_warnings()
    findings = asyncio.run(_look(settings))
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{MARKS[finding.state]}  {finding.about}: {printable(finding.text)}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


async def _look(settings: Settings) -> list[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    from worker.db.session import Database

    findings = [*_keys(settings), *_files(settings)]
    database = Database(settings.database_url, pool_size=1)
    try:
        findings += [finding async for finding in _database(settings, database)]
    except (SQLAlchemyError, OSError) as error:
        findings.append(Finding("database", "fail", first_line(error)))
    finally:
        await database.close()
    return [*findings, *await _broker(settings)]


def _keys(settings: Settings) -> Iterator[Finding]:
    source = settings.sources.get("secret_key", "default")
    if source != "default":
        yield Finding("secret key", "ok", f"from {source}")
    else:
        text = f"made on first use in {settings.home / 'secret.key'}; set M_SECRET_KEY before a second host joins"
        yield Finding("secret key", "ok", text)


def _files(settings: Settings) -> Iterator[Finding]:
    """Who else on this machine may read the key and the data."""
    if os.name == "nt":
        return
    files = [settings.home / "secret.key"]
    if settings.dialect == "sqlite":
        files.append(Path(settings.database_url.partition(":///")[2]))
    for path in files:
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding("files", "warn", f"{path} can be read by others on this machine: chmod 600 {path}")


async def _database(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    from worker.db import migrate
    from worker.errors import DeskError

    started = time.monotonic()
    async with database.session() as session:
        theirs = await database.now(session)
    round_trip_ms = (time.monotonic() - started) * 1000
    yield Finding("database", "ok", f"{database.dialect} answers in {round_trip_ms:.0f} ms")
    try:
        await migrate.check(settings.database_url)
    except DeskError as error:
        yield Finding("migrations", "fail", error.message)
        return
    yield Finding("migrations", "ok", f"at {migrate.head()}")
    yield _clock(theirs)
    async for finding in _durability(database):
        yield finding
    yield await _audit_log(database)
    async for finding in _workers(database, settings):
        yield finding


async def _audit_log(database: Database) -> Finding:
    from worker.accounts.audit import verify

    verdict = await verify(database)
    if not verdict.intact:
        text = f"the chain is broken at {verdict.broken_at}: entries were changed or removed outside the desk"
        return Finding("audit log", "fail", text)
    return Finding(
        "audit log", "ok", f"{verdict.sealed} entries sealed and intact, {verdict.unsealed} not sealed yet"
    )


def _clock(theirs: Any) -> Finding:
    from worker.db.base import utc_now

    apart_s = abs((utc_now() - theirs).total_seconds())
    if apart_s > CLOCK_SLACK_S:
        return Finding(
            "clock", "warn", f"this machine and the database are {apart_s:.1f} s apart: run an NTP client"
        )
    return Finding("clock", "ok", f"{apart_s:.1f} s from the database's")


async def _durability(database: Database) -> AsyncIterator[Finding]:
    """Accepted means committed: as durable as this says."""
    import sqlalchemy as sa

    async with database.read() as connection:
        if database.dialect == "sqlite":
            mode = await connection.scalar(sa.text("PRAGMA journal_mode"))
            sync = await connection.scalar(sa.text("PRAGMA synchronous"))
            good = mode == "wal" and sync == 2
            yield Finding(
                "durability", "ok" if good else "warn", f"journal_mode={mode}, synchronous={sync} (2 is FULL)"
            )
            return
        commit = str(await connection.scalar(sa.text("SHOW synchronous_commit")))
        if commit in ("off", "local"):
            yield Finding(
                "durability", "warn", f"synchronous_commit={commit}: a crash can lose jobs that were accepted"
            )
        else:
            yield Finding("durability", "ok", f"synchronous_commit={commit}")
        standbys = (
            await connection.execute(sa.text("SELECT application_name, sync_state FROM pg_stat_replication"))
        ).all()
    behind = [name for name, state in standbys if state == "async"]
    if behind:
        text = f"{', '.join(behind)} follow asynchronously: a failover can lose jobs that were accepted"
        yield Finding("standbys", "warn", text)
    else:
        yield Finding("standbys", "ok", f"{len(standbys)} seen, none asynchronous")


async def _workers(database: Database, settings: Settings) -> AsyncIterator[Finding]:
    import sqlalchemy as sa

    from worker.db.base import utc_now
    from worker.process.models import Worker

    recent = utc_now() - timedelta(seconds=settings.lease_s * 2)
    async with database.read() as connection:
        alive = await connection.execute(
            sa.select(Worker.kind, sa.func.count())
            .where(Worker.ended_at.is_(None), Worker.beat_at > recent)
            .group_by(Worker.kind)
        )
        kinds = {kind: int(number) for kind, number in alive}
    text = (
        ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        or "none is alive: nothing will run"
    )
    runs_jobs = bool(kinds.keys() & {"worker", "inline"})
    yield Finding("workers", "ok" if runs_jobs else "warn", text)
    if runs_jobs and not kinds.keys() & {"clerk", "inline"}:
        yield Finding("workers", "warn", "no clerk is alive: nothing is scheduled, rescued or cleaned up")


async def _broker(settings: Settings) -> list[Finding]:
    if settings.transport == "memory":
        return [Finding("broker", "ok", "none is configured: the web process runs the jobs")]
    from worker.engine import Engine

    async with Engine.create(settings) as engine:
        for _ in range(BROKER_LOOKS):
            if engine.doorbells.connected:
                break
            await asyncio.sleep(0.05)
        stats = await engine.doorbells.stats()
        cache = _cache(settings, engine.cache.connected)
    if not stats.get("connected"):
        return [
            *cache,
            Finding(
                "broker",
                "warn",
                f"{stats.get('url', settings.transport)} does not answer: jobs are found by polling",
            ),
        ]
    version = f", {stats.get('product', 'version')} {stats['version']}" if stats.get("version") else ""
    return [
        *cache,
        Finding("broker", "ok", f"connected to {stats.get('url', settings.transport)}{version}"),
        _broker_durability(stats),
        *_redis(stats.get("server") or {}),
    ]


def _cache(settings: Settings, connected: bool) -> list[Finding]:
    """Only where it is another server than the broker."""
    if not (settings.redis_url and settings.nats_url):
        return []
    if connected:
        return [Finding("cache", "ok", "Redis answers")]
    return [Finding("cache", "warn", "Redis does not answer: every web process asks the database by itself")]


def _redis(server: dict[str, Any]) -> Iterator[Finding]:
    """What of a Redis would lose doorbells, which costs time and no job."""
    if not server:
        return
    number = re.match(r"(\d+)\.(\d+)", server["redis_version"])
    if number and (int(number[1]), int(number[2])) < OLDEST_REDIS:
        text = f"it is {server['redis_version']}: doorbells need Redis 6.2 or newer, or Valkey"
        yield Finding("redis version", "fail", text)
    if server["maxmemory_policy"] != "noeviction":
        text = f"maxmemory-policy is {server['maxmemory_policy']}: it may throw doorbells away. Set it to noeviction"
        yield Finding("redis memory", "warn", text)
    if not server["appendonly"]:
        text = "appendonly is off: a restart forgets what waits, and workers find those jobs by polling"
        yield Finding("redis persistence", "warn", text)


def _broker_durability(stats: dict[str, Any]) -> Finding:
    """Doorbells may be lost; what a broker keeps only spares the workers their polls."""
    stream = stats.get("stream") or {}
    facts = ", ".join(
        f"{name}={value}" for name, value in stream.items() if name not in ("messages", "bytes")
    )
    waiting = stream.get("messages", 0)
    return Finding(
        "broker durability", "ok", f"{facts or 'no stream yet'}; {waiting} doorbells wait; none holds a job"
    )
