"""Events over the API: told, listed by pattern, read; what may not be said is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.webapp.api.conftest import Client
from worker.db.session import emit
from worker.events.models import OutboxRow


async def test_an_event_is_recorded_in_the_name_of_who_told_it(operator: Client) -> None:
    wish = {"event_type": "doc.created", "doctype": "Invoice", "doc_id": "7", "data": {"amount": 12}}
    status, told = await operator.call("POST", "/events", wish)
    assert status == 202
    _, found = await operator.call("GET", f"/events/{told['event_id']}")
    assert {name: found[name] for name in wish} == wish
    assert (found["user_id"], found["published_at"]) == ("a-operator", None)


@pytest.mark.parametrize(
    ("wish", "field", "said"),
    [
        ({}, "event_type", "is missing"),
        ({"event_type": "Doc.created"}, "event_type", "must be words"),
        ({"event_type": "doc.*"}, "event_type", "must be words"),
        ({"event_type": "job.failed"}, "event_type", "the engine's own"),
        ({"event_type": "doc.updated", "doctype": "User", "doc_id": "1"}, "doctype", "the desk's own"),
        ({"event_type": "a", "data": []}, "data", "a JSON object"),
        ({"event_type": "a", "data": {"x": "y" * 70_000}}, "data", "at most 65,536"),
        ({"event_type": "a", "doctype": ""}, "doctype", "1 to 200"),
        ({"event_type": "a", "event_id": "mine"}, "event_id", "is not known"),
        ({"event_type": "a", "user_id": "eve"}, "user_id", "is not known"),
    ],
)
async def test_what_may_not_be_said_is_refused_by_name(
    operator: Client, wish: dict[str, Any], field: str, said: str
) -> None:
    status, answer = await operator.call("POST", "/events", wish)
    assert status == 422
    assert said in operator.problems(answer)[field]


async def test_the_list_is_newest_first_by_pattern_and_pages_through_all(viewer: Client) -> None:
    for n in range(3):
        async with viewer.engine.database.transaction() as session:
            for part in range(4):
                emit(session, "doc.created" if part % 2 else "invoice.paid", {"n": n * 10 + part})
    seen, cursor = [], ""
    while True:
        query = {"pattern": "doc.*", "limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await viewer.call("GET", "/events", params=query))[1]
        seen += [event["data"]["n"] for event in page["items"] if "n" in event["data"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == [23, 21, 13, 11, 3, 1]


async def test_a_bad_pattern_and_an_unknown_event_are_named(viewer: Client) -> None:
    status, answer = await viewer.call("GET", "/events", params={"pattern": "doc.>.x"})
    assert (status, set(viewer.problems(answer))) == (422, {"pattern"})
    for unknown in ("nope", "019ab1c2-7d3e-7f00-8a11-2b3c4d5e6f70", "00000000-0000-4000-8000-000000000000"):
        assert (await viewer.call("GET", f"/events/{unknown}"))[0] == 404


async def test_events_about_people_are_for_admins(viewer: Client, operator: Client, admin: Client) -> None:
    async with viewer.engine.database.transaction() as session:
        emit(session, "doc.updated", {"doctype": "User", "marker": 1})
    async with viewer.engine.database.read() as connection:
        newest = sa.select(OutboxRow.events).order_by(OutboxRow.id.desc()).limit(1)
        event_id = (await connection.scalar(newest))[0]["event_id"]
    for client, status in ((viewer, 404), (operator, 404), (admin, 200)):
        assert (await client.call("GET", f"/events/{event_id}"))[0] == status
        _, listed = await client.call("GET", "/events")
        assert (event_id in {event["event_id"] for event in listed["items"]}) == (status == 200)
