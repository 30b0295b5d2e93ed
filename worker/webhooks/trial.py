"""A dry run: what a webhook would do with an event, part by part, without sending anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.db.base import new_id, utc_now
from worker.jobs.secret import MASK
from worker.webhooks import payload
from worker.webhooks.checks import WebhookChecks
from worker.webhooks.matching import Event, Subscription, Why, judged, meant
from worker.webhooks.urls import Refused


@dataclass(frozen=True, slots=True)
class Trial:
    """`why` says which part keeps the event back; the other parts are tried all the same."""

    why: Why | None
    condition_value: str | None
    """What the condition is, as JSON; None without one, or when it cannot be evaluated."""
    condition_error: str | None
    body: str | None
    body_error: str | None
    addresses: tuple[str, ...]
    """Where the request would go; empty while the name cannot be resolved."""
    refused: str | None
    """Why the URL may not be used."""

    @property
    def delivers(self) -> bool:
        return self.why is None and self.body_error is None and self.refused is None


async def try_out(checks: WebhookChecks, wish: Mapping[str, Any], event: Event, *, desk_url: str) -> Trial:
    """`wish` has the fields of a webhook that decide: event, doctype_filter, condition, payload_template, url, name.

    Raises:
        EvaluationAway: conditions and templates cannot be evaluated now.
    """
    subscription = Subscription(
        id=new_id(),
        name=str(wish.get("name") or ""),
        event=str(wish.get("event") or ">"),
        doctype_filter=wish.get("doctype_filter"),
        condition=wish.get("condition"),
        enabled=True,
        disabled_reason=None,
        created_at=utc_now(),
    )
    why, value, error = meant(subscription, event), None, None
    if subscription.condition:
        verdict = await checks.sandbox.condition(subscription.condition, event)
        error = verdict.error
        value = verdict.value if error is None else None
        why = why or judged(subscription, verdict)
    body, body_error = await _body(checks, wish, event, desk_url)
    addresses, refused = await _addresses(checks, str(wish.get("url") or ""))
    return Trial(why, value, error, body, body_error, addresses, refused)


async def _body(
    checks: WebhookChecks, wish: Mapping[str, Any], event: Event, desk_url: str
) -> tuple[str | None, str | None]:
    template = wish.get("payload_template")
    if not template:
        return payload.standard(event).decode(), None
    about = payload.about(str(wish.get("name") or ""), desk_url)
    rendered = await checks.sandbox.render(template, event, about)
    return (rendered.text if rendered.body is None else rendered.body.decode()), rendered.error


async def _addresses(checks: WebhookChecks, url: str) -> tuple[tuple[str, ...], str | None]:
    if not url or MASK in url:
        return (), None
    try:
        return tuple(str(address) for address in await checks.transport.check(url)), None
    except Refused as error:
        return (), str(error)
