"""Values made storable before they are batched: what a database refuses is replaced or refused here."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

from pydantic_core import PydanticSerializationError, to_jsonable_python

MAX_RESULT_BYTES = 1_000_000
MAX_ERROR_CHARS = 16_000
MAX_TRACEBACK_CHARS = 64_000

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Unstorable(ValueError):
    """A result that cannot be kept; the text says why and what is allowed."""


def result_json(value: Any) -> str | None:
    """A result as JSON text; None stays None.

    Raises:
        Unstorable: it is not made of JSON values, or longer than a megabyte.
    """
    if value is None:
        return None
    try:
        plain = _clean(to_jsonable_python(value, inf_nan_mode="constants"))
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as error:
        raise Unstorable(
            f"the result is of type {type(value).__name__}, which is not made of JSON values "
            f"(objects, lists, strings, numbers, booleans, null): {text_of(str(error), 300)}"
        ) from error
    if len(text.encode()) > MAX_RESULT_BYTES:
        raise Unstorable(
            f"the result is {len(text.encode()):,} bytes of JSON; at most {MAX_RESULT_BYTES:,} can be kept"
        )
    return text


def text_of(text: str, limit: int = MAX_ERROR_CHARS) -> str:
    """Text without NUL and half surrogates, cut in the middle when it is too long."""
    clean = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(clean) <= limit:
        return clean
    head, tail = limit // 3, limit - limit // 3
    return f"{clean[:head]}\n… {len(clean) - limit:,} characters left out …\n{clean[-tail:]}"


def fingerprint(job_name: str, error: str, traceback: str | None) -> str:
    """Groups failures of one cause: the job, the kind of error, its words without numbers, the last line of code."""
    frames = re.findall(r'File "([^"]+)", line \d+, in (\S+)', traceback or "")
    words = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "#", error[:300])
    basis = "\n".join((job_name, words, *(frames[-1] if frames else ())))
    return hashlib.sha256(basis.encode("utf-8", "replace")).hexdigest()[:32]


def _clean(value: Any) -> Any:
    """JSON values with unstorable characters replaced, and numbers that JSON lacks written as words."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_clean(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
