"""Recording an event that does not come from the engine itself: a program's, a job's, a person's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.session import record
from worker.errors import Invalid
from worker.events.types import BaseEvent, read_event

MAX_BYTES = 64 * 1024
OWN = frozenset({"job", "queue", "catalogue", "schedule", "webhook", "worker"})
"""The first words of the engine's own events: whoever hears one may believe it."""


def publish_event(session: AsyncSession, event: BaseEvent | Mapping[str, Any]) -> BaseEvent:
    """Records a foreign event in the session's transaction; the relay publishes it after the commit.

    Raises:
        Invalid: naming each field, what is wrong with it and what is allowed.
    """
    checked = event if isinstance(event, BaseEvent) else _read(event)
    if checked.event_type.split(".")[0] in OWN:
        own = ", ".join(sorted(OWN))
        raise Invalid(
            {
                "event_type": f"{checked.event_type!r} is an event of the engine's own: begin with another word than {own}"
            }
        )
    plain = checked.as_json()
    if (size := len(msgspec.json.encode(plain))) > MAX_BYTES:
        raise Invalid({"data": f"the event has {size:,} bytes; at most {MAX_BYTES:,} are allowed"})
    record(session.sync_session, plain)
    return checked


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
