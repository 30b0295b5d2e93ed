"""What a person typed into a job's form, as JSON arguments; and arguments as what a form shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from worker import strict_json
from worker.errors import Invalid
from worker.jobs.fields import Field
from worker.jobs.limits import shortened
from worker.jobs.secret import MASK, is_sealed

Form = Mapping[str, str | Sequence[str]]

INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
ZONED = re.compile(r".*([zZ]|[+-]\d\d:?\d\d)$")
YES, NO = frozenset({"true", "on", "yes", "1"}), frozenset({"false", "off", "no", "0", ""})


def from_form(
    fields: Iterable[Field], form: Form, *, kept: Mapping[str, Any] | None = None, prefix: str = ""
) -> dict[str, Any]:
    """The arguments object of a submitted form.

    What was left empty is left out, so that the function's default holds. A checkbox that is not sent is False. A
    date and time without a zone is UTC. Lists are one item a line, or JSON. A secret left empty stays as in `kept`.

    Raises:
        Invalid: one problem for each field that cannot be read.
    """
    args: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for field in fields:
        try:
            found = _read(field, form.get(prefix + field.name), (kept or {}).get(field.name))
        except ValueError as error:
            problems[field.name] = str(error)
        except Invalid as error:
            problems[field.name] = error.problems.get("value", str(error))
        else:
            if field.rest:
                args.update(found if isinstance(found, dict) else {})
            elif found is not LEFT_OUT:
                args[field.name] = found
    if problems:
        raise Invalid(problems)
    return args


def to_form(field: Field, value: Any) -> str:
    """A JSON value as the text of its control; a secret shows as dots."""
    if field.kind == "secret" or is_sealed(value):
        return MASK if value is not None else ""
    if value is None:
        return ""
    if field.kind == "list" and _one_a_line(field) and isinstance(value, list):
        return "\n".join(str(item) for item in value)
    if isinstance(value, str) and field.kind != "json":
        return _in_utc(value) if field.kind == "datetime" else value
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) else None)


def _in_utc(text: str) -> str:
    """The same instant without its zone, as a form's control takes it: with an offset it would show nothing."""
    text = text.removesuffix("Z").removesuffix("+00:00")
    if not ZONED.match(text):
        return text
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat()
    except (ValueError, OverflowError):
        return text


class _LeftOut:
    """Not an argument: the default holds."""


LEFT_OUT = _LeftOut()


def _read(field: Field, given: str | Sequence[str] | None, kept: Any) -> Any:
    if field.kind == "boolean" and not field.nullable:
        return _boolean(field, _one(given) if given is not None else "")
    if field.kind == "list" and given is not None and not isinstance(given, str):
        return [_item(field, each) for each in given if each.strip()]
    text = _one(given)
    if field.kind == "secret" and is_sealed(kept) and text in ("", MASK):
        return kept
    if field.kind == "text" and text == "" and field.has_default and field.default:
        return ""  # the person emptied it
    if field.kind not in ("text", "secret"):
        text = text.strip()
    if text == "":
        if field.required and not field.nullable:
            raise ValueError("is required")
        return None if field.required else LEFT_OUT
    return _READ[field.kind](field, text)


def _one(given: str | Sequence[str] | None) -> str:
    text = given if isinstance(given, str) else (given[-1] if given else "")
    return text.replace("\r\n", "\n")


def _boolean(_field: Field, text: str) -> bool:
    word = text.strip().lower()
    if word not in YES | NO:
        raise ValueError(f"must be true or false, not {shortened(text)}")
    return word in YES


def _integer(_field: Field, text: str) -> int:
    if not INTEGER.fullmatch(text):
        raise ValueError(f"must be a whole number, not {shortened(text)}")
    return int(text)


def _number(_field: Field, text: str) -> float:
    text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    if not NUMBER.fullmatch(text):
        raise ValueError(f"must be a number, not {shortened(text)}")
    return float(text)


def _decimal(_field: Field, text: str) -> str:
    if not NUMBER.fullmatch(text):
        raise ValueError(f"must be a decimal number like 12.50, not {shortened(text)}")
    return text


def _datetime(_field: Field, text: str) -> str:
    return text if ZONED.match(text) or "T" not in text.replace(" ", "T") else f"{text}Z"


def _choice(field: Field, text: str) -> Any:
    for choice in field.choices:
        if text == (choice if isinstance(choice, str) else json.dumps(choice)):
            return choice
    raise ValueError(f"must be one of {', '.join(map(shortened, field.choices))}, not {shortened(text)}")


def _list(field: Field, text: str) -> Any:
    if text.startswith("[") or not _one_a_line(field):
        return _json(field, text)
    return [_item(field, line) for line in text.splitlines() if line.strip()]


def _item(field: Field, text: str) -> Any:
    item = field.item
    return text if item is None else _READ[item.kind](item, text.strip())


def _one_a_line(field: Field) -> bool:
    return field.item is not None and field.item.kind not in ("object", "list", "json")


def _json(_field: Field, text: str) -> Any:
    return strict_json.loads(text, "value")


def _text(_field: Field, text: str) -> str:
    return text


_READ: dict[str, Callable[[Field, str], Any]] = {
    "text": _text, "secret": _text, "date": _text, "time": _text, "duration": _text, "uuid": _text,
    "datetime": _datetime, "boolean": _boolean, "integer": _integer, "number": _number, "decimal": _decimal,
    "enum": _choice, "list": _list, "object": _json, "json": _json,
}  # fmt: skip
