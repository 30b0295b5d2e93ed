"""Arguments against a JSON Schema (2020-12), with problems in plain words: which field, which value, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from worker.errors import Invalid
from worker.jobs.limits import shortened
from worker.jobs.secret import is_sealed

if TYPE_CHECKING:
    from jsonschema import FormatChecker

KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing (null)",
}
FORMATS = {
    "date": "a date like 2026-11-22",
    "date-time": "a date and time like 2026-11-22T09:30:00Z",
    "time": "a time like 09:30:00",
    "duration": "a duration like PT1H30M or 01:30:00",
    "decimal": "a decimal number like 12.50",
    "uuid": "a UUID like 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
}


class ArgsValidator:
    """Checks arguments objects against one schema. Sealed secrets are taken as they are."""

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema import Draft202012Validator
        from referencing import Registry

        self.schema = schema
        self.secrets = secret_names(schema)
        # An empty registry: a schema that comes from a table never makes this process fetch anything.
        self._validator = Draft202012Validator(schema, format_checker=_formats(), registry=Registry())

    def check(self, args: dict[str, Any], job_name: str = "this job") -> None:
        """Raises Invalid naming every field that does not fit."""
        if problems := self.problems(args, job_name):
            raise Invalid(problems)

    def problems(self, args: dict[str, Any], job_name: str = "this job") -> dict[str, str]:
        found: dict[str, str] = {}
        for error in self._validator.iter_errors(args):
            if error.absolute_path and error.absolute_path[0] in self.secrets:
                name = str(error.absolute_path[0])
                if not is_sealed(args[name]):
                    found.setdefault(name, f"must be {_allowed(error, self.schema)}")  # never its value
            else:
                for path, problem in _explain(error, self.schema, job_name):
                    found.setdefault(path, problem)
        return found


def unknown_argument(job_name: str, names: Iterable[str]) -> str:
    known = ", ".join(names)
    return f"is not a parameter of {job_name}, which takes {known or 'no arguments'}"


def _explain(error: Any, schema: dict[str, Any], job_name: str) -> Iterator[tuple[str, str]]:
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield _join(path, name), "is required"
    elif error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in error.instance:
            if name not in known:
                yield _join(path, name[:120]), unknown_argument(path or job_name, known)
    elif only := _only_branch(error, schema):
        for inner in only:
            yield from _explain(inner, schema, job_name)
    else:
        yield path or "args", f"must be {_allowed(error, schema)}, not {shortened(error.instance)}"


def _only_branch(error: Any, schema: dict[str, Any]) -> list[Any]:
    """Of an optional value ("this or null"), what is wrong with it as this."""
    if error.validator not in ("anyOf", "oneOf"):
        return []
    real = [
        index
        for index, branch in enumerate(error.validator_value)
        if resolve(schema, branch).get("type") != "null"
    ]
    if len(real) != 1:
        return []
    return [
        inner
        for inner in error.context or ()
        if inner.schema_path[0] == real[0] and inner.validator != "type"
    ]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _allowed(error: Any, schema: dict[str, Any]) -> str:
    if error.validator in ("anyOf", "oneOf"):
        return describe({"anyOf": error.validator_value}, schema)
    words = _ALLOWED.get(str(error.validator))
    return words(error.validator_value) if words else f"as its schema says ({error.validator})"


def describe(part: dict[str, Any], schema: dict[str, Any]) -> str:
    """What a part of a schema allows, in a few words."""
    part = resolve(schema, part)
    if "enum" in part:
        return _one_of(part["enum"])
    if "const" in part:
        return shortened(part["const"])
    if part.get("format") in FORMATS:
        return FORMATS[part["format"]]
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(describe(branch, schema) for branch in part["anyOf"]))
    if "type" in part:
        return _types(part["type"])
    return str(part.get("title") or "another value")


def _types(value: Any) -> str:
    return " or ".join(KINDS.get(kind, kind) for kind in ([value] if isinstance(value, str) else value))


def _one_of(values: list[Any]) -> str:
    return "one of " + ", ".join(shortened(value) for value in values)


_ALLOWED: dict[str, Callable[[Any], str]] = {
    "type": _types,
    "enum": _one_of,
    "const": shortened,
    "format": lambda name: FORMATS.get(name, f"a valid {name}"),
    "minimum": lambda n: f"at least {n}",
    "maximum": lambda n: f"at most {n}",
    "exclusiveMinimum": lambda n: f"more than {n}",
    "exclusiveMaximum": lambda n: f"less than {n}",
    "multipleOf": lambda n: f"a multiple of {n}",
    "minLength": lambda n: f"at least {n} character(s) long",
    "maxLength": lambda n: f"at most {n} character(s) long",
    "pattern": lambda pattern: f"like the pattern {pattern}",
    "minItems": lambda n: f"a list of at least {n}",
    "maxItems": lambda n: f"a list of at most {n}",
    "uniqueItems": lambda _: "a list without repetitions",
    "minProperties": lambda n: f"an object with at least {n} entries",
    "maxProperties": lambda n: f"an object with at most {n} entries",
}


def secret_names(schema: dict[str, Any]) -> frozenset[str]:
    """The arguments that are secrets."""
    properties = schema.get("properties", {})
    return frozenset(name for name, part in properties.items() if _is_secret(schema, part))


def _is_secret(schema: dict[str, Any], part: dict[str, Any]) -> bool:
    branches = (part, *part.get("anyOf", ()))
    return any(resolve(schema, branch).get("writeOnly") is True for branch in branches)


def resolve(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """`part` with a local `$ref` (one of pydantic's `#/$defs/…`) followed."""
    seen = 0
    while isinstance(reference := part.get("$ref"), str) and seen < 20:
        seen += 1
        target = schema.get("$defs", {}).get(reference.rpartition("/")[2], {})
        part = {**target, **{key: value for key, value in part.items() if key != "$ref"}}
    return part


@lru_cache(maxsize=1)
def _formats() -> FormatChecker:
    """The formats as pydantic reads them at the call, so that what is accepted here fits there."""
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from uuid import UUID

    from jsonschema import FormatChecker
    from pydantic import TypeAdapter

    checker = FormatChecker(formats=())
    kinds = {
        "date": date,
        "date-time": datetime,
        "time": time,
        "duration": timedelta,
        "uuid": UUID,
        "decimal": Decimal,
    }
    for name, kind in kinds.items():
        checker.checks(name, raises=ValueError)(_reader(TypeAdapter(kind)))
    return checker


def _reader(adapter: Any) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        if isinstance(value, str):
            adapter.validate_strings(value, strict=True)
        return True

    return fits
