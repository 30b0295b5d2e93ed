"""Who is told of an event, as pure rules that name what decided: pattern, doctype, condition, or the webhook itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from worker.events import patterns
from worker.webhooks.sandbox import Verdict

Event = Mapping[str, Any]
DETAIL_LENGTH: Final = 1000
_means = lru_cache(8192)(patterns.matches)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What of a webhook decides who is told."""

    id: UUID
    name: str
    event: str
    doctype_filter: str | None
    condition: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Why:
    """Why an event is not delivered: the part that decided, and the value that decided it."""

    reason: str
    """`pattern`, `doctype`, `later`, `own`, `disabled`, `condition` or `error`."""
    detail: str


def meant(webhook: Subscription, event: Event) -> Why | None:
    """None when pattern and doctype mean the event, else which of them does not."""
    event_type = str(event.get("event_type"))
    if not _means(webhook.event, event_type):
        return Why("pattern", f"{event_type} is not meant by {webhook.event}")
    if webhook.doctype_filter is not None and event.get("doctype") != webhook.doctype_filter:
        found = event.get("doctype")
        said = f"the doctype is {str(found)[:200]}" if found else "the event is not about a document"
        return Why("doctype", f"{said}, not {webhook.doctype_filter}")
    return None


def held_back(webhook: Subscription, event: Event, recorded_at: datetime | None = None) -> Why | None:
    """Why an event that is meant does not reach the condition; None when it does."""
    if recorded_at is not None and recorded_at < webhook.created_at:
        return Why(
            "later", f"the webhook was made at {webhook.created_at:%Y-%m-%d %H:%M:%S} UTC, after the event"
        )
    if is_about(webhook.id, event):
        return Why("own", "the event is about this webhook itself")
    if not webhook.enabled:
        return Why("disabled", (webhook.disabled_reason or "the webhook is switched off")[:DETAIL_LENGTH])
    return None


def judged(webhook: Subscription, verdict: Verdict | None) -> Why | None:
    """Why the condition's verdict keeps the event back; None when it is delivered."""
    if verdict is None or (verdict.matched and verdict.error is None):
        return None
    if verdict.error is not None:
        return Why("error", verdict.error[:DETAIL_LENGTH])
    return Why("condition", f"{webhook.condition} is {verdict.value}"[:DETAIL_LENGTH])


def is_about(webhook_id: UUID, event: Event) -> bool:
    """Whether an event tells of this webhook: telling it of itself could go round for ever."""
    data = event.get("data")
    about = data.get("webhook_id") if isinstance(data, Mapping) else None
    return str(about) == str(webhook_id) or (
        event.get("doctype") == "Webhook" and str(event.get("doc_id")) == str(webhook_id)
    )
