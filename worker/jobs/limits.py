"""What a job's arguments may be at all: storable JSON of a sane size, whatever the signature says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from worker.errors import Invalid
from worker.strict_json import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER

MAX_BYTES = 256 * 1024

_SUSPECT = re.compile(r"\\u0000|\\ud[89a-f]|[0-9]{19}")


def dump(args: dict[str, Any]) -> str:
    """The arguments as JSON text.

    Raises:
        Invalid: naming the argument and what cannot be stored of it.
        TypeError: a value is of a type that JSON does not know.
    """
    try:
        text = json.dumps(args, allow_nan=False)
    except (ValueError, RecursionError):  # NaN, a 5,000-digit integer, a cycle, a very deep value
        text = None
    if text is None or _looks_suspect(text):
        check(args)
        text = json.dumps(args, allow_nan=False)
        if _size(args) > MAX_BYTES:
            raise Invalid({"args": f"are {_size(args):,} bytes of JSON; at most {MAX_BYTES:,} are allowed"})
    return text


def check(args: dict[str, Any]) -> None:
    """Walks the arguments and raises Invalid for the first value that cannot be stored."""
    if not isinstance(args, dict):
        raise Invalid({"args": "must be a JSON object: one entry for each parameter"})
    stack: list[tuple[str, Any, int]] = [("", args, 1)]
    while stack:
        path, value, depth = stack.pop()
        if depth > MAX_DEPTH and isinstance(value, dict | list | tuple):
            raise Invalid({_name(path): f"is nested deeper than {MAX_DEPTH} levels"})
        if problem := _problem(value):
            raise Invalid({_name(path): problem})
        stack.extend((name, child, depth + 1) for name, child in _children(path, value))


def shortened(value: Any, limit: int = 60) -> str:
    """A value as it may stand in a message."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very long number"
    if isinstance(value, str):
        value = value[: limit + 1]
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _looks_suspect(text: str) -> bool:
    too_big = len(text) > MAX_BYTES
    perhaps_deep = text.count("{") + text.count("[") >= MAX_DEPTH
    return too_big or perhaps_deep or _SUSPECT.search(text) is not None


def _problem(value: Any) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which JSON cannot hold"
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return "is an integer beyond 64 bits; send it as text"
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, str) and (problem := _text_problem(key)):
                return f"has a key that {problem}"
    return None


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "contains a NUL character, which cannot be stored"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which is not valid Unicode"
    return None


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield (f"{path}.{key}" if path else str(key)), child
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield f"{path}.{index}", child


def _name(path: str) -> str:
    return path[:120].encode("utf-8", "replace").decode("utf-8").replace("\x00", "") or "args"


def _size(args: dict[str, Any]) -> int:
    return len(json.dumps(args, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
