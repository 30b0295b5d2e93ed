"""Recording an event that does not come from the engine itself: a program's, a job's, a person's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.db.session import record
from worker.errors import Invalid
from worker.events.types import BaseEvent, read_event

MAX_BYTES = 64 * 1024
OWN = frozenset({"job", "queue", "catalogue", "schedule", "webhook", "worker"})
"""The first words of the engine's own events: whoever hears one may believe it."""
OWN_DOCTYPES = frozenset({"User", "Session", "ApiToken", "ScheduledJob", "Webhook"})


def publish_event(session: AsyncSession, event: BaseEvent | Mapping[str, Any]) -> BaseEvent:
    """Records a foreign event in the session's transaction; the relay publishes it after the commit.

    Raises:
        Invalid: naming each field, what is wrong with it and what is allowed.
    """
    checked = event if isinstance(event, BaseEvent) else _read(event)
    record(session.sync_session, check_foreign(checked))
    return checked


def check_foreign(event: BaseEvent) -> dict[str, Any]:
    """The event as JSON, if somebody else than the engine may say it.

    Raises:
        Invalid: naming the field, what is wrong with it and what is allowed.
    """
    if event.event_type.split(".")[0] in OWN:
        own = ", ".join(sorted(OWN))
        raise Invalid(
            {
                "event_type": f"{event.event_type!r} is an event of the engine's own: begin with another word than {own}"
            }
        )
    doctype = getattr(event, "doctype", None)
    if doctype in OWN_DOCTYPES or event.data.get("doctype") in OWN_DOCTYPES:
        own = ", ".join(sorted(OWN_DOCTYPES))
        raise Invalid(
            {
                "doctype": f"{doctype or event.data['doctype']!r} is the desk's own, as {own} are: choose another"
            }
        )
    plain = event.as_json()
    if (size := len(msgspec.json.encode(plain))) > MAX_BYTES:
        raise Invalid({"data": f"the event has {size:,} bytes; at most {MAX_BYTES:,} are allowed"})
    return plain


async def publish(session: AsyncSession, event: Mapping[str, Any], *, actor: Actor) -> BaseEvent:
    """Records a person's or program's event in their name.

    Raises:
        Denied: to viewers.
        Invalid: naming each field, what is wrong with it and what is allowed.
    """
    actor.require("operator")
    told = publish_event(session, {**event, "user_id": actor.name})
    await audit(
        session, actor, "event.publish", "event", told.event_id, after={"event_type": told.event_type}
    )
    return told


def _read(event: Mapping[str, Any]) -> BaseEvent:
    try:
        return read_event(event)
    except ValidationError as error:
        raise Invalid(
            {
                ".".join(str(part) for part in each["loc"]) or "event": each["msg"].removeprefix(
                    "Value error, "
                )
                for each in error.errors()
            }
        ) from None
