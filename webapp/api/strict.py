"""Reads bodies, query parameters and headers into Structs: nothing unknown, nothing twice, every mistake named at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from msgspec.structs import FieldInfo

from worker import strict_json
from worker.errors import Invalid

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY_BYTES = 1_000_000
SHOWN_VALUE_LENGTH = 80


async def body(request: Request[Any, Any, Any], kind: type[S], *, optional: bool = False) -> S:
    """The request's JSON object as a `kind`; with `optional`, no body at all means the defaults.

    Raises:
        Invalid: naming every unknown, missing and wrong field with what is allowed.
        HTTPException: 413 beyond 1 MB, 415 when it is not called application/json.
    """
    raw = await request.body()
    if len(raw) > MAX_BODY_BYTES:
        raise HTTPException(
            status_code=413, detail=f"The body has {len(raw)} bytes; {MAX_BODY_BYTES} is the most."
        )
    if optional and not raw.strip():
        return read(kind, {})
    if request.content_type[0] != "application/json":
        raise HTTPException(status_code=415, detail="Send the body as Content-Type: application/json.")
    value = strict_json.loads(raw)
    if not isinstance(value, dict):
        raise Invalid({"body": "must be a JSON object"})
    return read(kind, value)


def query(request: Request[Any, Any, Any], kind: type[S]) -> S:
    """The query parameters as a `kind`. An empty parameter counts as absent; a list may repeat or use commas.

    Raises:
        Invalid: naming every unknown, repeated and wrong parameter, its value and what is allowed.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    given: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            problems[name] = "holds a character that no job can hold"
        elif name in fields and _is_list(fields[name]):
            given.setdefault(name, []).extend(part for part in value.split(",") if part)
        elif name in given:
            problems[name] = "stands twice; give it once"
        elif value:
            given[name] = value
    return read(kind, given, problems=problems, strict=False)


def header(request: Request[Any, Any, Any], name: str, *, longest: int) -> str | None:
    """A header of printable ASCII, or None. Raises Invalid naming it."""
    values = request.headers.getall(name, [])
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not 0 < len(value) <= longest or not (value.isascii() and value.isprintable()):
        raise Invalid({name: f"must stand once, with 1 to {longest} printable ASCII characters"})
    return value


def read(
    kind: type[S], given: Mapping[str, Any], *, problems: Mapping[str, str] | None = None, strict: bool = True
) -> S:
    """`given` as a `kind`; `problems` are those already known. Raises Invalid with all of them."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    wrong = dict(problems or {})
    values: dict[str, Any] = {}
    for name in given:
        if name not in fields:
            wrong.setdefault(name[:SHOWN_VALUE_LENGTH], f"is not known here; known are {_joined(fields)}")
    for name, field in fields.items():
        if name not in given:
            if field.required and name not in wrong:
                wrong[name] = f"is missing; it must be {_allowed(field)}"
            continue
        inner = _struct(field)
        if inner is not None and isinstance(given[name], dict):
            try:
                values[field.name] = read(inner, given[name], strict=strict)
            except Invalid as error:
                wrong |= {f"{name}.{part}": problem for part, problem in error.problems.items()}
            continue
        try:
            values[field.name] = msgspec.convert(given[name], field.type, strict=strict)
        except msgspec.ValidationError:
            wrong.setdefault(name, f"{shown(given[name])} is not allowed; it must be {_allowed(field)}")
    if wrong:
        raise Invalid(wrong)
    return kind(**values)


def shown(value: Any) -> str:
    """The value as JSON, cut to a length that fits a message."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_VALUE_LENGTH else text[: SHOWN_VALUE_LENGTH - 1] + "…"


def _allowed(field: FieldInfo) -> str:
    """The field's own words: the description in its outermost annotation."""
    for note in get_args(field.type)[1:]:
        if isinstance(note, msgspec.Meta) and note.description:
            return note.description
    return str(field.type)


def _struct(field: FieldInfo) -> type[msgspec.Struct] | None:
    """The Struct that the field holds, whose own fields are named one by one."""
    inner = get_args(field.type)[0] if get_args(field.type) else field.type
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _is_list(field: FieldInfo) -> bool:
    inner = (
        get_args(field.type)[0] if get_origin(field.type) is not list and get_args(field.type) else field.type
    )
    return get_origin(inner) is list


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
