"""Schedules that code owns: workers say what their code has, the clerk applies the newest version that is alive."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.base import new_id
from worker.db.session import Database, changed, emit
from worker.jobs import secret
from worker.process.models import Worker
from worker.process.presence import has_settled
from worker.schedules.actions import due_next, free_name, visible
from worker.schedules.cron import checked_expression
from worker.schedules.models import ScheduledJob
from worker.schedules.wishes import DEFAULTS

CODE = Actor("code", via="engine")
HASHES_KEPT = 50
LOOK_AGAIN_S = 30.0
KEY_AT_MOST = 300
NAME_AT_MOST = 180
DEFINED = ("function", "cron_expression", "time_zone", "args", "missed", "overlap", "catch_up_s", "jitter_s")


class CodeJob(Protocol):
    """As much of a job as its schedules need; `worker.jobs.job.Job` is one."""

    @property
    def name(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def fields(self) -> Any: ...
    @property
    def schedules(self) -> tuple[dict[str, Any], ...]: ...


@dataclass(frozen=True, slots=True)
class Advert:
    """One schedule as one live worker's code has it. `order` is the start of its supervisor, a UUIDv7."""

    key: str
    name: str
    module: str
    hash: str
    order: UUID
    definition: Mapping[str, Any]

    @property
    def deployed_at(self) -> datetime:
        return datetime.fromtimestamp((self.order.int >> 80) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Stored:
    """A code-owned schedule as the table has it."""

    id: UUID
    key: str
    module: str
    hash: str
    hashes: tuple[str, ...]
    edited_at: datetime | None
    retired: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """A live worker: the modules it was told to load, and since when it lives."""

    modules: tuple[str, ...]
    started_at: datetime


def advertised(jobs: Iterable[CodeJob], key: str) -> list[dict[str, Any]]:
    """What a worker's row says of its code's schedules. Secrets in their arguments are sealed with `key`."""
    found = []
    for job in jobs:
        numbers: Counter[str] = Counter()
        for schedule in job.schedules:
            module = schedule.get("module", job.module)
            key_of_it = _key(job, module, schedule.get("name"), numbers[module])
            numbers[module] += 1
            definition = _definition(job, schedule)
            text = json.dumps({**definition, "args": schedule["args"]}, sort_keys=True, default=str)
            found.append(
                {
                    "key": key_of_it,
                    "name": schedule.get("name") or key_of_it[:NAME_AT_MOST],
                    "module": module,
                    "hash": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest(),
                    "definition": {**definition, "args": secret.seal(job.fields, schedule["args"], key)},
                }
            )
    return found


def _definition(job: CodeJob, schedule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: schedule[name] for name in DEFINED if name in schedule} | {
        "function": job.name,
        "cron_expression": checked_expression(schedule["cron"]),
        "time_zone": schedule["time_zone"],
    }


def _key(job: CodeJob, module: str, name: str | None, number: int) -> str:
    """What makes it the same schedule over deploys and beside workers that load other modules.

    Its own name, else its place among those that the same module gives this job.
    """
    key = job.name if module == job.module else f"{job.name}@{module}"
    key += f"#{name}" if name is not None else f" {number + 1}" if number else ""
    return key if len(key) <= KEY_AT_MOST else hashlib.sha256(key.encode()).hexdigest()


def newest(current: str, seen: Sequence[str], adverts: Sequence[Advert]) -> Advert:
    """Which of the live versions holds.

    While the current one is alive only a version that was never applied replaces it, so that an old worker which starts
    again in the middle of a deploy brings nothing back. When nobody has the current one any more, the last started wins.
    """
    alive = [advert for advert in adverts if advert.hash == current]
    fresh = [advert for advert in adverts if advert.hash not in seen]
    return max((fresh or alive) if alive else adverts, key=lambda advert: advert.order)


def wanted_changes(
    adverts: Sequence[Advert], stored: Sequence[Stored], workers: Sequence[Loaded], now: datetime
) -> tuple[list[Advert], list[UUID]]:
    """What is to be applied, and which schedules are to be retired."""
    offers: dict[str, list[Advert]] = {}
    for advert in adverts:
        offers.setdefault(advert.key, []).append(advert)
    known = {one.key: one for one in stored}
    apply = [max(of, key=lambda advert: advert.order) for key, of in offers.items() if key not in known]
    retire = []
    for key, one in known.items():
        if key not in offers:
            if not one.retired and any(_lacks(worker, one.module, now) for worker in workers):
                retire.append(one.id)
            continue
        chosen = newest(one.hash, one.hashes, offers[key])
        overwrites = one.edited_at is not None and chosen.deployed_at > one.edited_at
        if one.retired or chosen.hash != one.hash or overwrites:
            apply.append(chosen)
    return apply, retire


def _lacks(worker: Loaded, module: str, now: datetime) -> bool:
    loads = any(module == name or module.startswith(f"{name}.") for name in worker.modules)
    return loads and has_settled(worker.started_at, now)


class CodeSchedules:
    """The clerk's look at what live workers advertise; it looks closely only when other workers live than before."""

    def __init__(self) -> None:
        self._seen: frozenset[UUID] | None = None
        self._at = 0.0

    async def apply(self, database: Database) -> int:
        """Creates, updates and retires what code owns; answers how many schedules changed."""
        live = sa.and_(Worker.ended_at.is_(None), Worker.kind != "clerk")
        async with database.read() as connection:
            ids = frozenset(await connection.scalars(sa.select(Worker.id).where(live)))
        if ids == self._seen and time.monotonic() - self._at < LOOK_AGAIN_S:
            return 0
        done = await apply_code(database)
        self._seen, self._at = ids, time.monotonic()
        return done


async def apply_code(database: Database, now: datetime | None = None) -> int:
    """One look: compares live workers' code with the table and writes what differs."""
    async with database.transaction() as session:
        now = now or await database.now(session)
        adverts, workers = await _alive(session)
        stored = await _stored(session)
        apply, retire = wanted_changes(adverts, stored, workers, now)
        ids = {one.key: one.id for one in stored}
        for advert in sorted(apply, key=lambda one: one.key):
            await _apply(session, advert, ids.get(advert.key), now)
        for schedule_id in retire:
            await _retire(session, schedule_id, now)
        return len(apply) + len(retire)


async def _alive(session: AsyncSession) -> tuple[list[Advert], list[Loaded]]:
    statement = sa.select(
        Worker.id, Worker.supervisor_id, Worker.started_at, Worker.modules, Worker.schedules
    ).where(Worker.ended_at.is_(None), Worker.kind != "clerk")
    adverts, workers = [], []
    for row in await session.execute(statement):
        workers.append(Loaded(tuple(row.modules), row.started_at))
        adverts += [
            Advert(
                one["key"],
                one["name"],
                one["module"],
                one["hash"],
                row.supervisor_id or row.id,
                one["definition"],
            )
            for one in row.schedules
        ]
    return adverts, workers


async def _stored(session: AsyncSession) -> list[Stored]:
    """Locked in one order: two clerks never apply the same thing twice."""
    statement = (
        sa.select(
            ScheduledJob.id, ScheduledJob.code_key, ScheduledJob.module, ScheduledJob.code_hash,
            ScheduledJob.code_hashes, ScheduledJob.edited_at, ScheduledJob.retired_at,
        )
        .where(ScheduledJob.code_key.is_not(None), ScheduledJob.deleted_at.is_(None))
        .order_by(ScheduledJob.id)
        .with_for_update()
    )  # fmt: skip
    return [
        Stored(
            row.id, row.code_key, row.module, row.code_hash, tuple(row.code_hashes), row.edited_at,
            row.retired_at is not None,
        )
        for row in await session.execute(statement)
    ]  # fmt: skip


async def _apply(session: AsyncSession, advert: Advert, known: UUID | None, now: datetime) -> None:
    schedule = None if known is None else await session.get(ScheduledJob, known, populate_existing=True)
    is_new = schedule is None
    if schedule is None:
        schedule = ScheduledJob(
            id=new_id(), name=await free_name(session, advert.name, " (code)"), code_key=advert.key, code_hashes=[],
            anchor=now, enabled=True, created_at=now, updated_at=now, created_by=CODE.name, version=0, rev=0, cron_expression="",
            time_zone="",
        )  # fmt: skip
    before = {} if is_new else visible(schedule)
    returns, rule = schedule.retired_at is not None, schedule.rule
    for name in DEFINED:
        setattr(schedule, name, advert.definition.get(name, DEFAULTS.get(name)))
    schedule.module, schedule.code_hash = advert.module, advert.hash
    schedule.code_hashes = [
        *(one for one in schedule.code_hashes if one != advert.hash), advert.hash
    ][-HASHES_KEPT:]  # fmt: skip
    schedule.edited_at = schedule.retired_at = None
    if schedule.cron_expression != rule.expression:
        schedule.anchor = now
    if returns or schedule.rule != rule:
        schedule.next_fire_at = due_next(schedule, now)
    if is_new:
        try:
            async with session.begin_nested():
                session.add(schedule)
        except IntegrityError:
            if await _is_there(session, advert.key):
                return  # another clerk was faster
            raise
        await _told(session, schedule, "schedule.created", before, now)
    else:
        await _told(session, schedule, "schedule.changed", before, now)


async def _is_there(session: AsyncSession, key: str) -> bool:
    there = sa.select(ScheduledJob.id).where(ScheduledJob.code_key == key, ScheduledJob.deleted_at.is_(None))
    return await session.scalar(there) is not None


async def _retire(session: AsyncSession, schedule_id: UUID, now: datetime) -> None:
    schedule = await session.get(ScheduledJob, schedule_id, populate_existing=True)
    if schedule is not None:
        before = visible(schedule)
        schedule.retired_at, schedule.next_fire_at = now, None
        await _told(session, schedule, "schedule.retired", before, now)


async def _told(
    session: AsyncSession, schedule: ScheduledJob, event: str, before: Mapping[str, Any], now: datetime
) -> None:
    schedule.updated_at, schedule.version, schedule.rev = now, schedule.version + 1, schedule.rev + 1
    await session.flush()
    data = {"schedule_id": str(schedule.id), "name": schedule.name, "function": schedule.function}
    emit(session, event, data, CODE.name)
    changed(session, "schedule", schedule.id, schedule.rev)
    await audit(session, CODE, event, "schedule", schedule.id, before=before, after=visible(schedule))
