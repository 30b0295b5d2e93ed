"""Which deliveries a filter means: the same words for lists, replays and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from worker.errors import Invalid
from worker.events import patterns
from worker.webhooks.models import WebhookLog

STATUSES: Final = ("pending", "sending", "retrying", "success", "failed")
FIELDS: Final = ("webhook_id", "status", "event", "response_code", "error_class", "after", "before", "ids")
MOST_IDS: Final = 1000


def checked(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The filter as JSON, without what is empty.

    Fields: `webhook_id`; `status`; `event`, a type or a pattern; `response_code`, a number; `error_class`; `after` and
    `before`, times with a zone; `ids` of deliveries. All of them must hold.

    Raises:
        Invalid: naming each wrong field with what is allowed.
    """
    given = {name: value for name, value in wanted.items() if value not in (None, "", [])}
    problems = {
        name: f"is not known: a filter may hold {', '.join(FIELDS)}" for name in given if name not in FIELDS
    }
    found: dict[str, Any] = {}
    for name, read in _READ.items():
        if name in given:
            try:
                found[name] = read(given[name])
            except ValueError as error:
                problems[name] = str(error)
    if problems:
        raise Invalid(problems)
    return found


def conditions(found: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """The SQL of a checked filter."""
    return [_SQL[name](value) for name, value in found.items()]


def _id(value: Any) -> str:
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise ValueError(f"{str(value)[:40]!r} is not an id") from None


def _ids(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or len(value) > MOST_IDS:
        raise ValueError(f"must be a list of at most {MOST_IDS} ids")
    return [_id(each) for each in value]


def _status(value: Any) -> str:
    if value not in STATUSES:
        raise ValueError(f"{str(value)[:40]!r} is not allowed: it must be one of {', '.join(STATUSES)}")
    return str(value)


def _event(value: Any) -> str:
    what = patterns.problem(str(value))
    if what is None and ">" in str(value) and "*" in str(value):
        what = "may hold * or >, not both"
    if what:
        raise ValueError(f"{str(value)[:80]!r} {what}")
    return str(value)


def _code(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and 100 <= int(text[:4]) <= 999):
        raise ValueError(f"{text[:40]!r} is not allowed: it must be a number from 100 to 999")
    return int(text)


def _class(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 40:
        raise ValueError("must be a text of at most 40 characters")
    return value


def _time(value: Any) -> str:
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"{str(value)[:40]!r} is not a time with a zone: write 2026-11-22T09:00:00Z")
    return at.isoformat()


def _meant(pattern: str) -> sa.ColumnElement[bool]:
    """A pattern over `event_type` as SQL: LIKE finds the words, the number of dots says that none spans two."""
    words = pattern.split(".")
    dots = sa.func.length(WebhookLog.event_type) - sa.func.length(
        sa.func.replace(WebhookLog.event_type, ".", "")
    )
    like = ".".join("%" if word in ("*", ">") else word.replace("_", "\\_") for word in words)
    exact = WebhookLog.event_type.like(like, escape="\\")
    return sa.and_(exact, dots >= len(words) - 1 if words[-1] == ">" else dots == len(words) - 1)


_READ: Final[dict[str, Any]] = {
    "webhook_id": _id,
    "status": _status,
    "event": _event,
    "response_code": _code,
    "error_class": _class,
    "after": _time,
    "before": _time,
    "ids": _ids,
}
_SQL: Final[dict[str, Any]] = {
    "webhook_id": lambda value: WebhookLog.webhook_id == UUID(value),
    "status": lambda value: WebhookLog.status == value,
    "event": _meant,
    "response_code": lambda value: WebhookLog.response_code == value,
    "error_class": lambda value: WebhookLog.error_class == value,
    "after": lambda value: WebhookLog.created_at >= datetime.fromisoformat(value),
    "before": lambda value: WebhookLog.created_at < datetime.fromisoformat(value),
    "ids": lambda value: WebhookLog.id.in_([UUID(each) for each in value]),
}
