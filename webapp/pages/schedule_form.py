"""The form of a schedule: what it shows, what was typed, and what that would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from webapp.arguments import defaults, read, read_json
from webapp.forms import Form
from webapp.pages.edit_job import fields_context
from webapp.queries.schedules import ScheduleView
from worker.errors import Invalid
from worker.jobs import secret
from worker.jobs.catalogue import JobOffer
from worker.schedules.cron import Rule, checked_expression, checked_zone
from worker.schedules.preview import Difference, Preview, difference, preview
from worker.schedules.zones import NOT_ZONES

PREVIEWED = 10
MOMENT = timedelta(microseconds=1)
TYPED = (
    "name", "cron_expression", "time_zone", "missed", "catch_up_s", "overlap", "jitter_s", "start_at", "end_at", "queue",
    "priority",
)  # fmt: skip
LABELS = {
    "name": "Name", "cron_expression": "When", "time_zone": "Time zone", "missed": "If it was missed",
    "catch_up_s": "Catch up within", "overlap": "If the run before goes on", "jitter_s": "Jitter", "start_at": "Not before",
    "end_at": "Not after", "queue": "Queue", "priority": "Priority", "function": "Job", "until": "Until", "since": "From",
    "reason": "Reason",
}  # fmt: skip
MISSED = (
    ("latest", "run once, for the latest"),
    ("skip", "do not run"),
    ("all", "run every one of them"),
)
OVERLAP = (
    ("skip", "leave the new run out"),
    ("allow", "let both run"),
    ("cancel_running", "cancel the one that goes on"),
)


@dataclass(frozen=True, slots=True)
class Tried:
    """What the typed rule would do, or why it cannot be."""

    preview: Preview | None
    difference: Difference | None
    problem: str | None


@cache
def zone_names() -> tuple[str, ...]:
    """Every zone's name, UTC first."""
    found = sorted(name for name in available_timezones() - NOT_ZONES if not name.startswith("Etc/"))
    return ("UTC", *(name for name in found if name != "UTC"))


def shown(view: ScheduleView | None) -> dict[str, str]:
    """The controls' texts for a schedule, or for a new one."""
    if view is None:
        empty = dict.fromkeys(TYPED, "")
        return empty | {
            "time_zone": "UTC",
            "missed": "latest",
            "overlap": "skip",
            "catch_up_s": "86400",
            "jitter_s": "0",
        }
    return {
        "name": view.name,
        "cron_expression": view.cron_expression,
        "time_zone": view.time_zone,
        "missed": view.missed,
        "catch_up_s": str(view.catch_up_s),
        "overlap": view.overlap,
        "jitter_s": f"{view.jitter_s:g}",
        "start_at": local_text(view.start_at),
        "end_at": local_text(view.end_at),
        "queue": view.queue or "",
        "priority": "" if view.priority is None else str(view.priority),
    }


def typed(form: Form) -> dict[str, str]:
    """What was typed, to be shown again."""
    return {name: form.text(name) for name in TYPED}


def wish(form: Form, offer: JobOffer | None, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the form asks for.

    Raises:
        Invalid: naming every text that is not what its control takes.
    """
    found: dict[str, Any] = {
        name: form.words(name) for name in ("name", "cron_expression", "time_zone", "missed", "overlap")
    }
    found["queue"] = form.words("queue") or None
    problems: dict[str, str] = dict(form.problems)
    for name, kind in (("catch_up_s", int), ("jitter_s", float), ("priority", int)):
        found[name] = _number(form, name, kind, problems)
    for name in ("start_at", "end_at"):
        found[name] = moment(form, name, problems)
    if offer is not None:
        try:
            found["args"] = (
                read_json(form.text("args")) if "args" in form.values else read(offer.fields, form, stored)
            )
        except Invalid as error:
            problems |= error.problems
    if problems:
        raise Invalid(problems)
    return found


def moment(form: Form, name: str, problems: dict[str, str]) -> datetime | None:
    """An instant in UTC as a control gives it; what is wrong is noted."""
    text = form.words(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problems[name] = f"{text[:40]!r} must be a time, such as 2026-11-22T10:30"
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def tried(form: Form, view: ScheduleView | None, now: datetime) -> Tried:
    """What the rule as typed would do from now on, and what that changes of the stored one."""
    if not form.words("cron_expression"):
        return Tried(None, None, None)
    problems: dict[str, str] = {}
    start, end = (moment(form, name, problems) for name in ("start_at", "end_at"))
    try:
        expression = checked_expression(form.words("cron_expression"))
        zone = checked_zone(form.words("time_zone") or "UTC")
    except Invalid as error:
        return Tried(None, None, " ".join(error.problems.values()))
    same = view is not None and view.cron_expression == expression and view.start_at == start
    anchor = start or (view.anchor if same and view is not None else now)
    rule = Rule(expression, zone, anchor, start, end)
    if view is None or view.next_fire_at is None:
        return Tried(preview(rule, now, PREVIEWED), None, None)
    return Tried(preview(rule, now, PREVIEWED), difference(rule_of(view), rule, now), None)


def rule_of(view: ScheduleView) -> Rule:
    return Rule(view.cron_expression, view.time_zone, view.anchor, view.start_at, view.end_at)


def kept_args(view: ScheduleView | None, function: str, offer: JobOffer | None) -> dict[str, Any]:
    """What a schedule's arguments are to a job: all to its own, to another those that it has a parameter for, no secrets."""
    if view is None:
        return {}
    if function == view.function or offer is None:
        return dict(view.args)
    names = {field.name for field in offer.fields} - secret.names(offer.fields)
    return {name: value for name, value in view.args.items() if name in names and secret.mask(value) == value}


def args_context(
    offer: JobOffer | None,
    args: dict[str, Any],
    sent: Form | None,
    problems: dict[str, str],
    *,
    as_json: bool,
    at: str,
) -> dict[str, Any]:
    """What jobs/_fields.html needs; as JSON where no worker tells the parameters."""
    as_json = offer is None or as_json or (sent is not None and "args" in sent.values)
    fields = offer.fields if offer else ()
    whole = args if as_json else defaults(fields) | args
    own = {name: what for name, what in problems.items() if name not in LABELS}
    context = fields_context(fields, whole, sent, own, as_json=as_json, at=at)
    named = [(name, LABELS[name], what) for name, what in problems.items() if name in LABELS]
    return context | {"errors": [*named, *context["errors"]]}


def local_text(at: datetime | None) -> str:
    """What a control of date and time shows, to the last digit that there is."""
    return (
        ""
        if at is None
        else at.replace(tzinfo=None).isoformat(timespec="auto" if at.second or at.microsecond else "minutes")
    )


def with_own(options: Sequence[str], value: str) -> tuple[str, ...]:
    """The options of a select, and the value that it has: saving must not change it because it is not among them."""
    return (*options,) if not value or value in options else (value, *options)


def _number(form: Form, name: str, kind: Any, problems: dict[str, str]) -> Any:
    text = form.words(name)
    if not text:
        return {"catch_up_s": 86_400, "jitter_s": 0.0}.get(name)
    try:
        return kind(text)
    except ValueError:
        problems[name] = f"{text[:20]!r} must be a {'whole ' if kind is int else ''}number"
        return None
