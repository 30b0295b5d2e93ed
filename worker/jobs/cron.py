"""Schedules that code owns: `schedule=[{"cron": ...}]` on a job, `cron_jobs = [cron(...)]` in a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

POLICIES = {"missed": ("latest", "skip", "all"), "overlap": ("skip", "allow", "cancel_running")}
KEYS = frozenset({"cron", "time_zone", "args", "name", "module", *POLICIES})


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
    for key, allowed in POLICIES.items():
        if schedule.get(key, allowed[0]) not in allowed:
            raise BadSchedule(f"{key}={schedule[key]!r}: it is one of {', '.join(allowed)}")
    name = schedule.get("name", "a name")
    if not isinstance(name, str) or not 0 < len(name) <= 90 or not name.isprintable():
        raise BadSchedule(f"name={name!r}: it is a text of 1 to 90 printable characters")
    more = {key: schedule[key] for key in ("name", "module", *POLICIES) if key in schedule}
    zone = schedule.get("time_zone") or "UTC"
    return {"cron": _expression(schedule["cron"]), "time_zone": _zone(zone), "args": dict(args), **more}


def _expression(text: str) -> str:
    from worker.errors import Invalid
    from worker.schedules.cron import checked_expression

    text = " ".join(text.split())
    try:
        checked_expression(text)
    except Invalid as error:
        raise BadSchedule(f"cron={text!r} is not a cron expression: {error.message}") from None
    return text


def _zone(name: Any) -> str:
    from worker.errors import Invalid
    from worker.schedules.cron import checked_zone

    try:
        return checked_zone(name)
    except Invalid:
        raise BadSchedule(f"time_zone={name!r} is not an IANA time zone like Europe/Warsaw") from None
