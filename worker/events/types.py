"""What an event is: a fact in the past tense, with an id that never changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_serializer, field_validator

from worker.db.base import new_id, utc_now
from worker.settings import WORD

MAX_TYPE = 200
_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def type_problem(event_type: object) -> str | None:
    """What is wrong with the name of an event and what is allowed; None when it is good."""
    words = event_type.split(".") if isinstance(event_type, str) else [""]
    if len(str(event_type)) <= MAX_TYPE and all(WORD.fullmatch(word) for word in words):
        return None
    return (
        "must be words of a-z, 0-9, _ and - joined by dots, such as invoice.paid, "
        f"at most {MAX_TYPE} characters"
    )


def _checked_type(event_type: str) -> str:
    if problem := type_problem(event_type):
        raise ValueError(f"{event_type[:80]!r} {problem}")
    return event_type


def _checked_id(event_id: str) -> str:
    if not _EVENT_ID.fullmatch(event_id):
        raise ValueError(f"{event_id[:80]!r} must be 1 to 64 letters, digits, _ and -")
    return event_id


EventType = Annotated[str, AfterValidator(_checked_type)]


class BaseEvent(BaseModel):
    """A fact. Whoever may hear it twice drops the second by its `event_id`. Fields of its own are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    event_id: Annotated[str, AfterValidator(_checked_id)] = Field(default_factory=lambda: str(new_id()))
    event_type: EventType
    timestamp: datetime = Field(default_factory=utc_now)
    user_id: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("timestamp")
    @classmethod
    def _in_utc(cls, at: datetime) -> datetime:
        if at.tzinfo is None:
            raise ValueError("has no time zone: write 2026-11-22T09:00:00Z")
        return at.astimezone(UTC)

    @field_serializer("timestamp")
    def _milliseconds(self, at: datetime) -> str:
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def as_json(self) -> dict[str, Any]:
        """The event as the JSON object that is stored and sent."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Self:
        return cls.model_validate(event)


class DocEvent(BaseEvent):
    """Something happened to a document: a row of a model that publishes."""

    TYPE: ClassVar[str] = "doc.changed"

    doctype: str = Field(min_length=1, max_length=200)
    doc_id: str = Field(min_length=1, max_length=200)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        DOC_EVENTS[cls.TYPE] = cls


DOC_EVENTS: dict[str, type[DocEvent]] = {}


class DocCreated(DocEvent):
    TYPE = "doc.created"
    event_type: EventType = TYPE


class DocUpdated(DocEvent):
    TYPE = "doc.updated"
    event_type: EventType = TYPE


class DocDeleted(DocEvent):
    TYPE = "doc.deleted"
    event_type: EventType = TYPE


class DocSubmitted(DocEvent):
    TYPE = "doc.submitted"
    event_type: EventType = TYPE


class DocCancelled(DocEvent):
    TYPE = "doc.cancelled"
    event_type: EventType = TYPE


def read_event(event: Mapping[str, Any]) -> BaseEvent:
    """The event of a JSON object, as the class of its type.

    Raises:
        pydantic.ValidationError: it is no event.
    """
    kind = DOC_EVENTS.get(str(event.get("event_type")))
    if kind is not None and event.get("doctype") and event.get("doc_id"):
        return kind.from_json(event)
    return BaseEvent.from_json(event)
