"""What a person, a program or code asks of a schedule, checked field by field before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from worker.errors import Invalid
from worker.joblogs.enqueue import Reception, Request, problems_of
from worker.jobs import secret
from worker.schedules.cron import Rule, checked_expression, checked_zone
from worker.schedules.models import NAME_LENGTH, ScheduledJob
from worker.schedules.policy import MISSED, OVERLAP

DEFAULTS: Final[dict[str, Any]] = {
    "args": {},
    "queue": None,
    "priority": None,
    "time_zone": "UTC",
    "start_at": None,
    "end_at": None,
    "jitter_s": 0.0,
    "missed": "latest",
    "catch_up_s": 86_400,
    "overlap": "skip",
    "enabled": True,
}
REQUIRED: Final = ("name", "function", "cron_expression")
FIELDS: Final = (*REQUIRED, *DEFAULTS)
RULE_FIELDS: Final = ("cron_expression", "time_zone", "start_at", "end_at")
LONGEST_CATCH_UP_S: Final = 366 * 86_400
LONGEST_JITTER_S: Final = 86_400


async def checked(
    session: AsyncSession, wish: Mapping[str, Any], stored: ScheduledJob | None = None
) -> dict[str, Any]:
    """The columns that `wish` asks for; over `stored`, only those that it names.

    Raises:
        Invalid: naming each wrong field with what is allowed.
    """
    whole = {**DEFAULTS, **({name: getattr(stored, name) for name in FIELDS} if stored else {}), **wish}
    problems = {name: "is needed" for name in REQUIRED if whole.get(name) in (None, "")}
    given = {name: whole[name] for name in wish if name in FIELDS} if stored else dict(whole)
    if "name" in given and "name" not in problems:
        problems |= _name_problem(given["name"])
    problems |= _plain_problems(given, whole)
    for name, check in (("cron_expression", checked_expression), ("time_zone", checked_zone)):
        if name in given and name not in problems:
            problems |= _taken(given, name, check)
    problems |= _time_problems(whole, problems)
    if "function" not in problems and ({"function", "args"} & given.keys()):
        problems |= await _sealed_args(session, given, whole, stored)
    if problems:
        raise Invalid(problems)
    return given


def rule_of(values: Mapping[str, Any], anchor: datetime) -> Rule:
    """The rule of a checked wish."""
    start = values.get("start_at")
    return Rule(values["cron_expression"], values["time_zone"], start or anchor, start, values.get("end_at"))


def _name_problem(name: Any) -> dict[str, str]:
    if not isinstance(name, str) or not 0 < len(name.strip()) <= NAME_LENGTH or not name.isprintable():
        return {"name": f"must be a text of 1 to {NAME_LENGTH} printable characters"}
    return {}


def _plain_problems(given: dict[str, Any], whole: Mapping[str, Any]) -> dict[str, str]:
    request = Request("", {}, queue=whole["queue"], priority=whole["priority"])
    problems = {name: text for name, text in problems_of(request).items() if name in given}
    if whole["missed"] not in MISSED:
        problems["missed"] = f"{whole['missed']!r} is not allowed: it must be latest, skip or all"
    if whole["overlap"] not in OVERLAP:
        problems["overlap"] = f"{whole['overlap']!r} is not allowed: it must be skip, allow or cancel_running"
    for name, longest in (("jitter_s", LONGEST_JITTER_S), ("catch_up_s", LONGEST_CATCH_UP_S)):
        value = whole[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= longest
            or math.isnan(value)
        ):
            problems[name] = f"{value!r} is not allowed: it must be a number of seconds from 0 to {longest}"
    if not isinstance(whole["enabled"], bool):
        problems["enabled"] = "must be true or false"
    return problems


def _taken(given: dict[str, Any], name: str, check: Any) -> dict[str, str]:
    try:
        given[name] = check(given[name])
    except Invalid as error:
        return dict(error.problems)
    return {}


def _time_problems(whole: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    problems = {
        name: f"{whole[name].isoformat()} has no time zone: write 2026-11-22T09:00:00Z"
        for name in ("start_at", "end_at")
        if whole[name] is not None and whole[name].tzinfo is None and name not in known
    }
    start, end = whole["start_at"], whole["end_at"]
    if not problems and start is not None and end is not None and start >= end:
        problems["end_at"] = "must be later than the start"
    return problems


async def _sealed_args(
    session: AsyncSession, given: dict[str, Any], whole: Mapping[str, Any], stored: ScheduledJob | None
) -> dict[str, str]:
    """Checks the arguments against the function's signature and seals its secrets; a masked one stays as it was."""
    reception: Reception = session.sync_session.info["reception"]
    offer = await reception.offers.get(session, whole["function"])
    if offer is None:
        return {"function": f"no worker offers a job called {str(whole['function'])[:200]!r}"}
    kept = stored.args if stored is not None and stored.function == whole["function"] else {}
    try:
        fitting = offer.validate(secret.keep(offer.fields, dict(whole["args"]), kept))
        given["args"] = secret.seal(offer.fields, fitting, reception.settings.secret_key)
    except Invalid as error:
        return {f"args.{name.removeprefix('args.')}": what for name, what in error.problems.items()}
    return {}
