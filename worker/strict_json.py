"""Reads JSON from outside: exact and bounded, so that what is stored is what was sent and nothing can be hidden in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from worker.errors import Invalid

MAX_DEPTH = 32
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)


def loads(text: bytes | str, field: str = "body") -> Any:
    """The JSON value in `text`.

    Raises:
        Invalid: naming `field`, when it is not JSON (RFC 8259), stands deeper than 32 levels, or holds what does not
            survive storage or means different things to different readers: repeated keys, NaN and infinities,
            integers beyond 64 bits, lone surrogates, U+0000.
    """
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        _check(value)
    except RecursionError:
        problem = f"nests deeper than {MAX_DEPTH} levels"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except ValueError as error:
        problem = str(error)
    else:
        return value
    raise Invalid({field: problem})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"holds the key {twice!r} twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not JSON")


def _integer(digits: str) -> int:
    if len(digits) <= 20 and MIN_INTEGER <= (number := int(digits)) <= MAX_INTEGER:
        return number
    raise ValueError(
        f"holds an integer of {len(digits.lstrip('-'))} digits; 64 bits is the most, send it as a string"
    )


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("holds a number beyond the range of a double")
    return number


def _check(value: Any) -> None:
    """Walks without recursion: the depth and the text of everything in `value`."""
    level, depth = [value], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise ValueError(f"nests deeper than {MAX_DEPTH} levels")
                below.extend(item)
                if isinstance(item, dict):
                    below.extend(item.values())
        level, depth = below, depth + 1


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValueError("holds U+0000, which a database cannot store")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate, which is not a character") from None
