"""What the adapters share: the form of a message, checks, and giving a message's events to a handler."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog
from pydantic import ValidationError

from worker.errors import Invalid
from worker.events import patterns
from worker.events.port import LONGEST_DELAY_S, MAX_MESSAGE_BYTES, Handler, Message
from worker.events.types import BaseEvent, read_event, type_problem
from worker.settings import WORD

log = structlog.get_logger(__name__)

REMEMBERED = 10_000


def message_of(topic: str, event: BaseEvent | Sequence[BaseEvent]) -> Message:
    """One message, checked.

    Raises:
        Invalid: the topic is none.
    """
    if problem := type_problem(topic):
        raise Invalid({"topic": f"{str(topic)[:80]!r} {problem}"})
    return Message(topic, encode([event] if isinstance(event, BaseEvent) else event))


def check_subscription(pattern: str, durable: str | None, since: datetime | None) -> None:
    """Raises Invalid, naming what cannot be subscribed with."""
    problems: dict[str, str] = {}
    if problem := patterns.problem(pattern):
        problems["pattern"] = f"{pattern[:80]!r} {problem}"
    if durable is not None and not WORD.fullmatch(durable):
        problems["durable"] = f"{durable[:80]!r} must be one word of a-z, 0-9, _ and -, at most 63 characters"
    if since is not None and since.tzinfo is None:
        problems["since"] = f"{since.isoformat()} has no time zone"
    if problems:
        raise Invalid(problems)


def encode(events: Iterable[BaseEvent]) -> bytes:
    return msgspec.json.encode([event.as_json() for event in events])


def decode(data: bytes) -> list[BaseEvent]:
    """The events of a message; what is none is left out and logged, so that a stranger's bytes block nobody."""
    try:
        found: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        log.warning("A message on the event bus is no JSON and was dropped", bytes=len(data))
        return []
    events = []
    for each in found if isinstance(found, list) else [found]:
        try:
            events.append(read_event(each))
        except (ValidationError, AttributeError, TypeError) as error:
            log.warning("Something on the event bus is no event and was dropped", error=str(error)[:200])
    return events


def pack(events: Iterable[dict[str, Any]], limit: int = MAX_MESSAGE_BYTES) -> list[bytes]:
    """The events in order as JSON arrays of at most `limit` bytes; an event that is larger is an array of its own."""
    arrays: list[list[bytes]] = []
    room = 0
    for event in events:
        text = msgspec.json.encode(event)
        if not arrays or len(text) + 1 > room:
            arrays.append([])
            room = limit - 1
        arrays[-1].append(text)
        room -= len(text) + 1
    return [b"[" + b",".join(array) + b"]" for array in arrays]


def delay_s(deliveries: int) -> float:
    """How long a message that failed `deliveries` times waits."""
    return float(min(LONGEST_DELAY_S, 0.5 * 2 ** min(deliveries - 1, 10)))


class Handling:
    """One subscription's handler, with the ids that it has handled lately."""

    def __init__(self, pattern: str, handler: Handler, foreign: bool = False) -> None:
        self.pattern = pattern
        self._foreign = foreign
        self._handler = handler
        self._done: OrderedDict[str, None] = OrderedDict()

    async def handle(self, topic: str, data: bytes, recorded: bool = False) -> bool:
        """Gives a message's events to the handler; False when it raised, and the message must come again."""
        if not patterns.matches(self.pattern, topic) or (self._foreign and recorded):
            return True
        for event in decode(data):
            if event.event_id in self._done:
                continue
            try:
                await self._handler(event)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("A handler of events failed", pattern=self.pattern, event_id=event.event_id)
                return False
            self._remember(event.event_id)
        return True

    def give_up(self, topic: str, deliveries: int) -> None:
        log.error(
            "A message on the event bus was given up: its handler failed too often",
            topic=topic, pattern=self.pattern, deliveries=deliveries,
        )  # fmt: skip

    def _remember(self, event_id: str) -> None:
        self._done[event_id] = None
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
