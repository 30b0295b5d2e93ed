"""The form of a webhook: what it shows, what was typed, and what that would do with an event that happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from webapp.filters import span
from webapp.forms import Form
from webapp.queries.events import EventView
from webapp.queries.webhooks import WebhookView
from worker.errors import Invalid
from worker.events import known, patterns
from worker.jobs.secret import MASK
from worker.webhooks.models import METHODS
from worker.webhooks.payload import TEMPLATES
from worker.webhooks.retries import DEFAULT_RETRIES, PLANS, covered_s
from worker.webhooks.trial import Trial

TYPED = (
    "name", "event", "doctype_filter", "condition", "url", "method", "headers", "secret_headers", "payload_template",
    "retry", "max_retries", "timeout_s", "rate_per_s", "concurrency",
)  # fmt: skip
LABELS = {
    "name": "Name", "event": "Events", "doctype_filter": "Document type", "condition": "Condition", "url": "URL",
    "method": "Method", "headers": "Headers", "secret_headers": "Secret headers", "payload_template": "Body",
    "retry": "Retries", "max_retries": "At most", "timeout_s": "Deadline", "rate_per_s": "Per second",
    "concurrency": "At once at most", "secret": "Signing secret", "overlap_hours": "Overlap", "reason": "Reason",
    "rate": "A second", "filter": "Filter", "status": "Status", "response_code": "Status code", "error_class": "Error",
    "after": "Since", "before": "Until", "ids": "Deliveries", "webhook_id": "Webhook", "enabled": "Switched on",
}  # fmt: skip
SHOWN_TYPES = 12
READY = (("", "as it is below"), ("slack", "for Slack"), ("teams", "for Teams"), ("json", "plain JSON"))
"""Bodies that come with the desk."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What stands in the form, tried on an event; `problem` is what kept it from being tried at all."""

    types: list[str]
    """Known events that the pattern means."""
    more_types: int
    pattern_problem: str | None
    events: list[tuple[str, str]]
    """Past events to try it on: id and words."""
    event: EventView | None
    trial: Trial | None
    problem: str | None


def shown(view: WebhookView | None) -> dict[str, str]:
    """The controls' texts for a webhook, or for a new one."""
    if view is None:
        return dict.fromkeys(TYPED, "") | {
            "method": "POST",
            "retry": "short",
            "timeout_s": "30",
            "concurrency": "10",
        }
    return {
        "name": view.name,
        "event": view.event,
        "doctype_filter": view.doctype_filter or "",
        "condition": view.condition or "",
        "url": view.url,
        "method": view.method,
        "headers": _lines(view.headers),
        "secret_headers": _lines(dict.fromkeys(view.secret_headers, MASK)),
        "payload_template": view.payload_template or "",
        "retry": view.retry,
        "max_retries": str(view.max_retries),
        "timeout_s": f"{view.timeout_s:g}",
        "rate_per_s": "" if view.rate_per_s is None else f"{view.rate_per_s:g}",
        "concurrency": str(view.concurrency),
    }


def typed(form: Form) -> dict[str, str]:
    """What was typed, to be shown again; a body that comes with the desk stands in the place of the typed one."""
    found = {name: form.text(name) for name in TYPED}
    if (ready := form.text("ready")) in TEMPLATES:
        found["payload_template"] = TEMPLATES[ready]
    return found


def wish(form: Form) -> dict[str, Any]:
    """What the form asks for.

    Raises:
        Invalid: naming every text that is not what its control takes.
    """
    values = typed(form)
    problems: dict[str, str] = dict(form.problems)
    found: dict[str, Any] = {
        name: values[name].strip() for name in ("name", "event", "url", "method", "retry")
    }
    found |= {name: values[name] for name in ("doctype_filter", "condition", "payload_template")}
    for name, kind in (
        ("max_retries", int),
        ("timeout_s", float),
        ("rate_per_s", float),
        ("concurrency", int),
    ):
        found[name] = _number(values[name].strip(), name, kind, problems)
    headers = {name: _headers(values[name], name, problems) for name in ("headers", "secret_headers")}
    found["headers"] = headers["headers"] | headers["secret_headers"]
    found["secret_headers"] = list(headers["secret_headers"])
    if twice := headers["headers"].keys() & headers["secret_headers"].keys():
        problems["secret_headers"] = f"{min(twice)} stands under Headers too"
    if problems:
        raise Invalid(problems)
    return {
        name: value
        for name, value in found.items()
        if value is not None or name in ("rate_per_s", "max_retries")
    }


def fitting_types(pattern: str, seen: Sequence[str]) -> tuple[list[str], int]:
    """Which events this pattern means, of those that the engine tells and those that were seen; and how many more."""
    fit = sorted(name for name in {*known.TYPES, *seen} if patterns.matches(pattern, name))
    return fit[:SHOWN_TYPES], max(0, len(fit) - SHOWN_TYPES)


def plans() -> list[tuple[str, str]]:
    """The plans of retries with the outage that each covers."""
    words = {"short": "Short", "27h": "27 hours", "75h": "75 hours"}
    return [(plan, f"{words[plan]}: {_covers(plan, DEFAULT_RETRIES[plan])}") for plan in PLANS]


def covered_words(plan: str, max_retries: int) -> str:
    """`3 retries, an outage of up to 5 m`."""
    if not max_retries:
        return "none: one attempt"
    return f"{max_retries} of the plan {plan}, for an outage of up to {span(covered_s(plan, max_retries))}"


def methods() -> list[str]:
    return list(METHODS)


def errors_of(problems: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(name if name in LABELS else "", LABELS.get(name, name), what) for name, what in problems.items()]


def _covers(plan: str, retries: int) -> str:
    return f"{retries} retries, covers {span(covered_s(plan, retries))}"


def _lines(headers: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


def _headers(text: str, field: str, problems: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            problems[field] = "must have one header a line, such as X-Team: billing"
        elif name in found:
            problems[field] = f"names {name} twice"
        found[name] = value.strip()
    return found


def _number(text: str, name: str, kind: Any, problems: dict[str, str]) -> Any:
    if not text:
        return None
    try:
        return kind(text)
    except ValueError:
        problems[name] = f"{text[:20]!r} must be a {'whole ' if kind is int else ''}number"
        return None
