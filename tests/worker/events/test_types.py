"""Events as values: what is one, what is none, and that writing and reading changes nothing."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.events import types
from worker.events.handling import decode, encode, pack
from worker.events.types import BaseEvent, DocCreated, DocEvent, read_event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.lists(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=3), max_size=4)
)
def test_what_is_written_is_read(datas) -> None:
    events = [BaseEvent(event_type="doc.created", data=data) for data in datas]
    assert [event.as_json() for event in decode(encode(events))] == [event.as_json() for event in events]


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(300, 4000))
def test_arrays_hold_everything_in_order_and_fit(sizes, limit) -> None:
    events = [{"event_id": str(n), "data": "x" * size} for n, size in enumerate(sizes)]
    arrays = pack(events, limit)
    assert [event for array in arrays for event in json.loads(array)] == events
    for array in arrays:
        assert len(array) <= limit or len(json.loads(array)) == 1


def test_a_document_event_is_read_as_its_class_with_fields_of_its_own() -> None:
    event = read_event({"event_type": "doc.created", "doctype": "Todo", "doc_id": "1", "extra": [1]})
    assert isinstance(event, DocCreated)
    assert event.as_json()["extra"] == [1]
    assert type(read_event({"event_type": "doc.created", "data": {}})) is BaseEvent


def test_every_document_event_has_its_type() -> None:
    assert set(types.DOC_EVENTS) == {
        "doc.created",
        "doc.updated",
        "doc.deleted",
        "doc.submitted",
        "doc.cancelled",
    }
    for kind in types.DOC_EVENTS.values():
        assert issubclass(kind, DocEvent)
        assert kind(doctype="Todo", doc_id="1").event_type == kind.TYPE


def test_times_are_utc_with_milliseconds() -> None:
    at = datetime(2026, 11, 25, 10, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
    assert BaseEvent(event_type="a", timestamp=at).as_json()["timestamp"] == "2026-11-25T09:00:00.123Z"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"event_type": "Doc.created"}, "'Doc.created' must be words"),
        ({"event_type": "doc.*"}, "must be words"),
        ({"event_type": "a\nb"}, "must be words"),
        ({"event_type": "a", "event_id": "x" * 65}, "must be 1 to 64"),
        ({"event_type": "a", "event_id": "a.b"}, "must be 1 to 64"),
        ({"event_type": "a", "timestamp": "2026-11-25T10:00:00"}, "has no time zone"),
        ({"event_type": "a", "data": []}, "dictionary"),
    ],
)
def test_what_is_no_event_is_refused_by_name(fields, said) -> None:
    with pytest.raises(ValidationError, match=said):
        read_event(fields)
