"""A JobFilter as SQL conditions: those an index answers, and those that look at each row."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from worker.joblogs.models import JobLog
from worker.joblogs.search import JobFilter
from worker.process.models import Worker

Condition = sa.ColumnElement[bool]

CLOCK_SLACK = timedelta(minutes=10)
"""How far the clock in a UUIDv7 and `enqueued_at` may disagree: they may come from two machines."""


@dataclass(frozen=True, slots=True)
class Conditions:
    indexed: tuple[Condition, ...]
    scanned: tuple[Condition, ...]


def conditions(wanted: JobFilter, dialect: str, late_before: datetime) -> Conditions:
    """What a row must satisfy. A queued job whose `run_at` is before `late_before` is late."""
    indexed = [JobLog.deleted_at.is_(None), *_plain(wanted, late_before), *_when(wanted)]
    if wanted.problems:
        indexed.append(sa.false())
    return Conditions(tuple(indexed), tuple(_scanned(wanted, dialect)))


def _plain(wanted: JobFilter, late_before: datetime) -> list[Condition]:
    found: list[Condition] = []
    if wanted.statuses:
        found.append(_status(wanted.statuses, late_before))
    if wanted.queues:
        found.append(_in(JobLog.queue, wanted.queues))
    if wanted.jobs:
        found.append(_in(JobLog.job_name, wanted.jobs))
    if wanted.schedules:
        found.append(_in(JobLog.scheduled_job_id, wanted.schedules))
    if wanted.groups:
        found.append(_in(JobLog.error_fingerprint, wanted.groups))
    if wanted.ids:
        found.append(sa.or_(*(_id_begins(digits) for digits in wanted.ids)))
    if "resolved" in wanted.meanings:
        found.append(JobLog.resolved_at.is_not(None))
    if "unresolved" in wanted.meanings:
        found.append(JobLog.resolved_at.is_(None))
    return found


def _status(statuses: tuple[str, ...], late_before: datetime) -> Condition:
    plain = tuple(status for status in statuses if status != "late")
    late = sa.and_(JobLog.status == sa.literal_column("'queued'"), JobLog.run_at < late_before)
    if "late" not in statuses:
        return _in(JobLog.status, plain)
    return sa.or_(_in(JobLog.status, plain), late) if plain else late


def _in(column: Any, values: tuple[Any, ...]) -> Condition:
    condition: Condition = column == values[0] if len(values) == 1 else column.in_(values)
    return condition


def _id_begins(digits: str) -> Condition:
    if len(digits) == 32:
        return JobLog.id == UUID(digits)
    return JobLog.id.between(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))


def _when(wanted: JobFilter) -> list[Condition]:
    """Ids are made in the order of `enqueued_at`, so they narrow by the index what the column decides."""
    found: list[Condition] = []
    if wanted.after:
        found += [JobLog.id >= id_at(wanted.after - CLOCK_SLACK), JobLog.enqueued_at >= wanted.after]
    if wanted.before:
        found += [JobLog.id < id_at(wanted.before + CLOCK_SLACK), JobLog.enqueued_at < wanted.before]
    if wanted.ended_after:
        found.append(JobLog.completed_at >= wanted.ended_after)
    return found


def id_at(at: datetime) -> UUID:
    """The least UUIDv7 of that millisecond."""
    milliseconds = min(max(int(at.timestamp() * 1000), 0), 2**48 - 1)
    return UUID(int=milliseconds << 80)


# What no index knows


def _scanned(wanted: JobFilter, dialect: str) -> list[Condition]:
    found: list[Condition] = [_argument(path, value, dialect) for path, value in wanted.args]
    found += [sa.and_(JobLog.error.is_not(None), contains(JobLog.error, value)) for value in wanted.errors]
    found += [sa.or_(contains(JobLog.error, text), _args_contain(text, dialect)) for text in wanted.text]
    if wanted.tags:
        found.append(sa.or_(*(_tagged(tag, dialect) for tag in wanted.tags)))
    if wanted.workers:
        found.append(JobLog.worker_id.in_(_workers(wanted.workers)))
    if wanted.users:
        found.append(_in(JobLog.user_id, wanted.users))
    return found


def contains(column: Any, text: str) -> Condition:
    """Whether the column holds the text, whatever its case; % and _ stand for themselves."""
    return sa.cast(column, sa.Text).icontains(text, autoescape=True)


def _args_contain(text: str, dialect: str) -> Condition:
    """Looks at the stored JSON, in which a quote or an accented letter may be written as an escape."""
    spellings = {text, json.dumps(text, ensure_ascii=False)[1:-1]}
    if dialect == "sqlite":
        spellings.add(json.dumps(text)[1:-1])
    return sa.or_(*(contains(JobLog.args, spelling) for spelling in sorted(spellings)))


def _argument(path: str, value: str, dialect: str) -> Condition:
    """`args.a.b:value`: a text or a list of texts holds the value; a number, true, false or null is just that."""
    stored = _at_path(path, dialect)
    quoted = sorted({json.dumps(value, ensure_ascii=False), json.dumps(value)})
    if re.fullmatch(r"-?\d+(\.\d+)?|true|false|null", value):
        return sa.or_(stored == value, stored.in_(quoted))
    in_text = sa.and_(stored.like('"%'), sa.or_(*(contains(stored, spelling[1:-1]) for spelling in quoted)))
    in_list = sa.and_(stored.like("[%"), sa.or_(*(contains(stored, spelling) for spelling in quoted)))
    return sa.or_(in_text, in_list)


def _at_path(path: str, dialect: str) -> sa.ColumnElement[str]:
    """The JSON text of what stands at `path`, such as `"ada"`, `42`, `true`."""
    keys = [key for key in path.split(".") if key]
    if dialect == "sqlite":
        steps = "".join(f"[{key}]" if key.isdigit() else '."' + key.replace('"', "") + '"' for key in keys)
        return sa.cast(JobLog.args, sa.Text).op("->", return_type=sa.Text())(f"${steps}")
    return sa.cast(JobLog.args[tuple(keys)], sa.Text)


def _tagged(tag: str, dialect: str) -> Condition:
    if dialect == "sqlite":
        each = sa.func.json_each(JobLog.tags).table_valued("value")
        return sa.exists(sa.select(1).select_from(each).where(each.c.value == tag))
    return sa.type_coerce(JobLog.tags, postgresql.JSONB).contains([tag])


def _workers(names: tuple[str, ...]) -> sa.Select[tuple[UUID]]:
    """Workers by host, by host:pid, or by the beginning of their id."""
    return sa.select(Worker.id).where(sa.or_(*(_worker(name) for name in names)))


def _worker(name: str) -> Condition:
    host, _, pid = name.rpartition(":")
    if host and pid.isdigit() and len(pid) < 10:
        return sa.and_(Worker.host == host, Worker.pid == int(pid))
    digits = name.lower().replace("-", "")
    if re.fullmatch(r"[0-9a-f]{8,32}", digits):
        low, high = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
        return sa.or_(Worker.id.between(low, high), Worker.host == name)
    return Worker.host == name
