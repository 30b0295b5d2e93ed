"""A job's parameters as the controls of a form, and what came back as JSON arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webapp.forms import Form
from worker import strict_json
from worker.errors import Invalid
from worker.jobs.fields import Field
from worker.jobs.forms import from_form, to_form
from worker.jobs.secret import MASK, TAG

PREFIX = "arg."
LONG_TEXTS = frozenset({"body", "text", "message", "content", "description", "note", "html", "sql", "query"})
INPUTS = {
    "integer": "number", "number": "number", "date": "date", "datetime": "datetime-local", "time": "time",
    "secret": "password", "object": "json", "json": "json",
}  # fmt: skip
SHOWABLE = {
    "date": re.compile(r"(\d{4}-\d\d-\d\d)?"),
    "datetime-local": re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?)?"),
    "time": re.compile(r"(\d\d:\d\d(:\d\d)?)?"),
}
"""What such a control can hold. Browsers show anything else as empty, and would send it so."""
STEPS = {"integer": "1", "number": "any", "datetime": "1", "time": "1"}
HELP = {
    "datetime": "UTC.",
    "duration": "ISO 8601, such as PT90S or P1DT2H.",
    "object": "A JSON object.",
    "json": "Any JSON value; a text needs its quotes.",
    "uuid": "A UUID.",
}


@dataclass(frozen=True, slots=True)
class Control:
    """One control of the form, as jobs/_fields.html draws it."""

    name: str
    label: str
    type: str
    value: Any
    error: str | None
    help: str | None
    required: bool
    options: tuple[tuple[str, str], ...] = ()
    note: str | None = None
    min: str | None = None
    max: str | None = None
    step: str | None = None


def controls(
    fields: Sequence[Field],
    args: Mapping[str, Any],
    *,
    form: Form | None = None,
    problems: Mapping[str, str] | None = None,
) -> list[Control]:
    """Controls that hold `args`, or what was typed into `form`, each with its own problem."""
    problems = problems or {}
    named = {field.name for field in fields if not field.rest}
    rest = {name: value for name, value in args.items() if name not in named}
    return [
        _control(field, rest or None if field.rest else args.get(field.name), form, problems.get(field.name))
        for field in fields
    ]


def defaults(fields: Sequence[Field]) -> dict[str, Any]:
    """What the form shows before anything is typed."""
    return {field.name: field.default for field in fields if field.has_default and not field.rest}


def read(fields: Sequence[Field], form: Form, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON arguments that the form spells. A secret left empty stays as it is in `stored`.

    Raises:
        Invalid: naming each parameter whose text is not what it takes.
    """
    kept = {
        field.name: {TAG: MASK} for field in fields if field.kind == "secret" and field.name in (stored or {})
    }
    return from_form(
        fields, {name: values[-1] for name, values in form.values.items()}, kept=kept, prefix=PREFIX
    )


def read_json(text: str) -> dict[str, Any]:
    """The arguments from the JSON view.

    Raises:
        Invalid: under `args`, when it is not a JSON object.
    """
    args = strict_json.loads(text or "{}", "args")
    if not isinstance(args, dict):
        raise Invalid({"args": 'must be a JSON object, such as {"to": "ada@example.com"}'})
    return args


def by_field(problems: Mapping[str, str], fields: Sequence[Field]) -> dict[str, str]:
    """Problems as the job's own check names them (`args.opts.size`), under the parameter that shows them."""
    names = {field.name for field in fields}
    found: dict[str, str] = {}
    for path, what in problems.items():
        inner = path.removeprefix("args.")
        top = inner.partition(".")[0].partition("[")[0]
        key = top if top in names else path
        words = what if inner == key else f"{inner} {what}"
        found[key] = f"{found[key]}; {words}" if key in found else words
    return found


def json_text(value: Any) -> str:
    """A value as JSON that a person reads and edits."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def _control(field: Field, value: Any, form: Form | None, error: str | None) -> Control:
    shown: Any = to_form(field, value) if form is None else form.text(PREFIX + field.name)
    kind = _type(field, shown)
    if kind == "checkbox":
        shown = bool(value) if form is None else form.flag(PREFIX + field.name)
    kept = field.kind == "secret" and value is not None
    if error and kind == "number":
        kind = "text"  # a number control would not show what was typed
    return Control(
        name=field.name,
        label=field.name,
        type=kind,
        value="" if field.kind == "secret" else shown,
        error=error,
        help=_help(field, kept),
        required=field.required and not field.nullable and kind != "checkbox" and not kept,
        options=_options(field),
        min=_number(field.minimum) if kind == "number" else None,
        max=_number(field.maximum) if kind == "number" else None,
        step=STEPS.get(field.kind) if kind != "text" else None,
    )


def _type(field: Field, shown: str) -> str:
    if field.kind == "boolean":
        return "select" if field.nullable else "checkbox"
    if field.kind == "enum":
        return "select"
    if field.kind == "list":
        return "textarea" if _one_a_line(field) else "json"
    if field.rest:
        return "json"
    if field.kind == "text" and ("\n" in shown or field.name in LONG_TEXTS):
        return "textarea"
    kind = INPUTS.get(field.kind, "text")
    return kind if kind not in SHOWABLE or SHOWABLE[kind].fullmatch(shown) else "text"


def _one_a_line(field: Field) -> bool:
    return field.item is not None and field.item.kind not in ("object", "list", "json")


def _options(field: Field) -> tuple[tuple[str, str], ...]:
    if field.kind == "enum":
        choices = [(to_form(field, choice), str(choice)) for choice in field.choices if choice is not None]
    elif field.kind == "boolean" and field.nullable:
        choices = [("true", "yes"), ("false", "no")]
    else:
        return ()
    return (
        (("", ""), *choices) if field.nullable or not field.required or len(choices) > 1 else tuple(choices)
    )


def _help(field: Field, kept: bool) -> str | None:
    parts = [field.help]
    if field.kind == "list":
        parts.append("One a line." if _one_a_line(field) else "A JSON array.")
    elif field.rest:
        parts.append("Further arguments as a JSON object.")
    else:
        parts.append(HELP.get(field.kind, ""))
    if field.kind == "secret":
        parts.append("Leave it empty to keep the one it has." if kept else "Kept encrypted, shown to nobody.")
    return " ".join(part for part in parts if part) or None


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"
