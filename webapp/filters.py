"""Words that pages make of values: what a parameter takes, how a job retries, what a status panel says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

KINDS = {
    "text": "text", "integer": "whole number", "number": "number", "boolean": "yes or no", "date": "date",
    "datetime": "date and time", "time": "time of day", "duration": "duration", "decimal": "decimal", "uuid": "UUID",
    "object": "object", "json": "any JSON", "secret": "secret",
}  # fmt: skip
LONG = 60


def type_words(field: Mapping[str, Any]) -> str:
    """What a parameter takes, as the catalogue stores it: `list of whole number`, `one of a, b`."""
    kind = str(field.get("kind", "json"))
    if kind == "enum":
        words = "one of " + ", ".join(str(choice) for choice in field.get("choices", ()))
    elif kind == "list":
        item = field.get("item")
        words = f"list of {type_words(item)}" if item else "list"
    else:
        words = KINDS.get(kind, kind)
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None or high is not None:
        words += f" {low if low is not None else ''}…{high if high is not None else ''}"
    return f"{words} or none" if field.get("nullable") else words


def default_words(field: Mapping[str, Any]) -> str:
    return shortened(json.dumps(field["default"], ensure_ascii=False)) if "default" in field else ""


def retry_words(max_retries: int, retry: Mapping[str, Any]) -> str:
    """`3, after 2 s, doubling up to 10 min`."""
    if not max_retries:
        return "none"
    base, cap = retry.get("base_s"), retry.get("cap_s")
    return (
        f"{max_retries}, after up to {_span(base)} at first, {_span(cap)} at most"
        if base and cap
        else str(max_retries)
    )


def action_words(action: str) -> str:
    """An audited action in words: `session.sign_in` is `session sign in`."""
    return action.replace(".", " ").replace("_", " ")


BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "HeadlessChrome": "Chrome",
    "Chrome": "Chrome",
}
SYSTEMS = {
    "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Macintosh": "macOS",
    "CrOS": "ChromeOS", "Linux": "Linux",
}  # fmt: skip


def browser_words(user_agent: str) -> str:
    """`Firefox 140 on Linux`; what is no browser says its own name."""
    products = (re.search(rf"\b({part})/(\d+)", user_agent) for part in BROWSERS)
    product = next((found for found in products if found), None)
    safari = re.search(r"\bVersion/(\d+)\S* .*Safari/", user_agent)
    if product:
        words = f"{BROWSERS[product[1]]} {product[2]}"
    elif safari:
        words = f"Safari {safari[1]}"
    else:
        return shortened(user_agent) or "an unknown program"
    system = next((name for part, name in SYSTEMS.items() if part in user_agent), None)
    return f"{words} on {system}" if system else words


def shortened(text: str, length: int = LONG) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def plural(n: int, one: str, many: str | None = None) -> str:
    """`1 job`, `3 jobs`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", "\u202f")


def span(seconds: float) -> str:
    """How long something has been so, in one unit: `40 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def _span(seconds: Any) -> str:
    return span(float(seconds))
