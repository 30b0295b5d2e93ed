"""Schedules that code owns: `schedule=[{"cron": ...}]` on a job, `cron_jobs = [cron(...)]` in a module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

NAMED = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
EVERY = re.compile(r"every [1-9][0-9]{0,6}\s?(s|m|h|d)")
KEYS = frozenset({"cron", "time_zone", "args"})


class BadSchedule(ValueError):
    """A schedule that cannot be; its text says why. It becomes the job's BadJobDefinition."""


@dataclass(frozen=True, slots=True)
class CronJob:
    """A line of a module's `cron_jobs`: which job, when, with which arguments."""

    name: str
    expression: str
    time_zone: str = "UTC"
    args: dict[str, Any] = field(default_factory=dict)

    def as_schedule(self) -> dict[str, Any]:
        return {"cron": self.expression, "time_zone": self.time_zone, "args": self.args}


def cron(
    name: str,
    expression: str | None = None,
    *,
    minute: int | str | None = None,
    hour: int | str | None = None,
    day: int | str = "*",
    month: int | str = "*",
    weekday: int | str = "*",
    time_zone: str = "UTC",
    args: Mapping[str, Any] | None = None,
) -> CronJob:
    """A schedule for the job called `name`: `cron("report", hour=9)` or `cron("report", "0 9 * * mon-fri")`.

    A minute that is not given is 0 once something coarser is, else every minute; so is the hour for a day.
    """
    if expression is None:
        coarser = (day, month, weekday) != ("*", "*", "*")
        hour = hour if hour is not None else 0 if coarser and minute is None else "*"
        minute = minute if minute is not None else "*" if hour == "*" else 0
        expression = f"{minute} {hour} {day} {month} {weekday}"
    return CronJob(name, expression, time_zone, dict(args or {}))


def checked_schedules(schedules: Any) -> tuple[dict[str, Any], ...]:
    """Schedules in their full form. Raises BadSchedule in plain words."""
    if isinstance(schedules, Mapping | str):
        raise BadSchedule('schedule is a list: [{"cron": "0 9 * * *"}]')
    return tuple(_checked(schedule) for schedule in schedules)


def _checked(schedule: Any) -> dict[str, Any]:
    if not isinstance(schedule, Mapping) or not isinstance(schedule.get("cron"), str):
        raise BadSchedule(f'schedule={schedule!r}: each entry is like {{"cron": "0 9 * * *"}}')
    if unknown := schedule.keys() - KEYS:
        raise BadSchedule(f"schedule has {min(unknown)!r}; it may have {', '.join(sorted(KEYS))}")
    args = schedule.get("args") or {}
    if not isinstance(args, Mapping):
        raise BadSchedule(f"the schedule's args are {args!r}; they are an object of arguments by name")
    zone = schedule.get("time_zone") or "UTC"
    return {"cron": _expression(schedule["cron"]), "time_zone": _zone(zone), "args": dict(args)}


def _expression(text: str) -> str:
    from cronsim import CronSim, CronSimError

    text = " ".join(text.split())
    if text.lower() in NAMED or EVERY.fullmatch(text):
        return text
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise BadSchedule(f"cron={text!r} is not a cron expression: {error}") from None
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):  # not found, malformed, unreadable, not text
        raise BadSchedule(f"time_zone={name!r} is not an IANA time zone like Europe/Warsaw") from None
    return name
