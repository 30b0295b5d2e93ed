"""What a person or a program asks of a webhook, checked field by field before anything is locked or written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.errors import Invalid
from worker.events import patterns
from worker.jobs.secret import MASK
from worker.webhooks import headers as rules
from worker.webhooks import secrets, signing
from worker.webhooks.models import METHODS, NAME_LENGTH, Webhook
from worker.webhooks.ports import Checks
from worker.webhooks.retries import DEFAULT_RETRIES, PLANS

DEFAULTS: Final[dict[str, Any]] = {
    "doctype_filter": None,
    "condition": None,
    "method": "POST",
    "headers": {},
    "secret_headers": [],
    "payload_template": None,
    "timeout_s": 30.0,
    "retry": "short",
    "max_retries": None,
    "rate_per_s": None,
    "concurrency": 10,
    "enabled": True,
}
REQUIRED: Final = ("name", "event", "url")
FIELDS: Final = (*REQUIRED, *DEFAULTS)
NUMBERS: Final = {"timeout_s": (1.0, 30.0), "rate_per_s": (0.01, 1000.0)}
CONDITION_LENGTH: Final = 2000
TEMPLATE_LENGTH: Final = 20_000
MOST_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for and found good, as far as it can be without the stored webhook."""

    values: Mapping[str, Any]
    secret: str | None = None
    """A signing secret that the caller brings; None means a new one."""


async def checked(wish: Mapping[str, Any], checks: Checks, *, whole: bool = True) -> Wish:
    """The checked wish: of a new webhook when `whole`, else of changes. Names are resolved: call it outside a transaction.

    Raises:
        Invalid: naming each wrong field with what is allowed.
    """
    given = dict(DEFAULTS) | dict(wish) if whole else dict(wish)
    secret = given.pop("secret", None)
    given = {name: _trimmed(name, value) for name, value in given.items() if name in FIELDS}
    problems = {n: "is needed" for n in REQUIRED if (whole or n in given) and given.get(n) in (None, "")}
    for name, problem in _RULES.items():
        if name in given and name not in problems and (what := problem(given[name])):
            problems[name] = what
    if secret is not None and (what := signing.secret_problem(str(secret))):
        problems["secret"] = what
    for name in ("url", "condition", "payload_template"):
        if name in problems or given.get(name) is None:
            continue
        if what := await getattr(checks, name)(given[name]):
            problems[name] = what
    if problems:
        raise Invalid(problems)
    return Wish(given, secret)


def columns(wish: Wish, secret_key: str, stored: Webhook | None = None) -> dict[str, Any]:
    """The columns that a wish asks for: secrets encrypted, those that came masked as they are stored.

    Raises:
        Invalid: naming each field that does not go with the others.
    """
    values = dict(wish.values)
    problems = _plan_problems(values, stored)
    if "headers" in values or "secret_headers" in values:
        try:
            values |= _headers(values, secret_key, stored)
        except Invalid as error:
            problems |= error.problems
    if problems:
        raise Invalid(problems)
    return values


def _plan_problems(values: dict[str, Any], stored: Webhook | None) -> dict[str, str]:
    """How many retries there are depends on their plan; a plan that is changed alone brings its own number."""
    plan = values.get("retry", stored.retry if stored else "short")
    if "retry" in values and values.get("max_retries") is None:
        values["max_retries"] = DEFAULT_RETRIES[plan]
    retries = values.get("max_retries", stored.max_retries if stored else 0)
    if "max_retries" in values and retries is None:
        values["max_retries"] = retries = DEFAULT_RETRIES[plan]
    if retries > len(PLANS[plan]):
        return {
            "max_retries": f"{retries} is more than the plan {plan} has: it must be from 0 to {len(PLANS[plan])}"
        }
    return {}


def _headers(values: Mapping[str, Any], secret_key: str, stored: Webhook | None) -> dict[str, Any]:
    hidden = dict(stored.secret_headers) if stored else {}
    if "headers" in values:
        given = dict(values["headers"])
    else:
        given = {**(stored.headers if stored else {}), **dict.fromkeys(hidden, MASK)}
    names = list(values["secret_headers"]) if "secret_headers" in values else list(hidden)
    kept = {name: hidden[name] for name, value in given.items() if value == MASK and name in hidden}
    fresh = {name: value for name, value in given.items() if name not in kept}
    if what := rules.problem(fresh):
        raise Invalid({"headers": what})
    shown = {name.lower() for name in names} | rules.ALWAYS_SECRET
    opened = secrets.open_headers(secret_key, {n: v for n, v in kept.items() if n.lower() not in shown})
    if opened:
        name = next(iter(opened))
        raise Invalid(
            {"secret_headers": f"{name} is stored as a secret: give its value anew to store it openly"}
        )
    plain, secret = rules.split(fresh, names)
    return {"headers": plain, "secret_headers": {**kept, **secrets.seal_headers(secret_key, secret)}}


def _trimmed(name: str, value: Any) -> Any:
    """Empty fields of a form mean nothing."""
    if not isinstance(value, str):
        return value
    if name in ("name", "event", "url", "doctype_filter", "condition"):
        value = value.strip()
    return (
        None if name in ("doctype_filter", "condition", "payload_template") and not value.strip() else value
    )


def _name(value: Any) -> str | None:
    good = isinstance(value, str) and 0 < len(value) <= NAME_LENGTH and value.isprintable()
    return None if good else f"must be a text of 1 to {NAME_LENGTH} printable characters"


def _event(value: Any) -> str | None:
    what = patterns.problem(value) if isinstance(value, str) else "must be a text"
    return f"{str(value)[:80]!r} {what}" if what else None


def _doctype(value: Any) -> str | None:
    good = value is None or (isinstance(value, str) and len(value) <= 200 and value.isprintable())
    return None if good else "must be the name of a doctype, at most 200 printable characters"


def _method(value: Any) -> str | None:
    return None if value in METHODS else f"{value!r} is not allowed: it must be one of {', '.join(METHODS)}"


def _text(longest: int) -> Any:
    def problem(value: Any) -> str | None:
        if value is None or (isinstance(value, str) and len(value) <= longest and "\0" not in value):
            return None
        return f"must be a text of at most {longest} characters"

    return problem


def _url(value: Any) -> str | None:
    return None if isinstance(value, str) else "must be a text"


def _number(name: str) -> Any:
    least, most = NUMBERS[name]

    def problem(value: Any) -> str | None:
        if value is None and name == "rate_per_s":
            return None
        good = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        if good and least <= value <= most:
            return None
        return f"{value!r} is not allowed: it must be a number from {least:g} to {most:g}"

    return problem


def _whole(least: int, most: int, *, optional: bool = False) -> Any:
    def problem(value: Any) -> str | None:
        if value is None and optional:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return None
        return f"{value!r} is not allowed: it must be a whole number from {least} to {most}"

    return problem


def _plan(value: Any) -> str | None:
    return None if value in PLANS else f"{value!r} is not allowed: it must be one of {', '.join(PLANS)}"


def _texts(value: Any) -> str | None:
    good = isinstance(value, dict) and all(isinstance(t, str) for pair in value.items() for t in pair)
    return None if good else 'must be names and texts, like {"X-Team": "billing"}'


def _names(value: Any) -> str | None:
    good = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return None if good else "must be a list of header names"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


_RULES: Final[dict[str, Any]] = {
    "name": _name,
    "event": _event,
    "url": _url,
    "doctype_filter": _doctype,
    "condition": _text(CONDITION_LENGTH),
    "method": _method,
    "headers": _texts,
    "secret_headers": _names,
    "payload_template": _text(TEMPLATE_LENGTH),
    "timeout_s": _number("timeout_s"),
    "retry": _plan,
    "max_retries": _whole(0, max(map(len, PLANS.values())), optional=True),
    "rate_per_s": _number("rate_per_s"),
    "concurrency": _whole(1, MOST_AT_ONCE),
    "enabled": _flag,
}
