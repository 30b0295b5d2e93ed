"""The page of events: what happened by pattern, one event with what came of it, one published by hand."""

from __future__ import annotations

import re

import pytest

from tests.webapp.site import Browser, Site
from worker import job
from worker.db.session import emit
from worker.events.job_starts import JobStarts
from worker.events.takers import hand_over
from worker.jobs.registry import Registry


@job(on="invoice.*", retry=0)
async def books(event: dict) -> None: ...


async def tell(site: Site, *types: str, **data: object) -> None:
    async with site.database.transaction() as session:
        for event_type in types:
            emit(session, event_type, data)


def types_on(text: str) -> list[str]:
    return re.findall(r'href="/events/[0-9a-f-]{36}">([^<]+)</a>', text)


async def test_events_stand_newest_first_and_a_pattern_chooses(vera: Browser, site: Site) -> None:
    await tell(site, "invoice.paid", "invoice.sent")
    await tell(site, "doc.created")
    everything = types_on((await vera.get("/events")).text)
    assert (
        everything.index("doc.created") < everything.index("invoice.sent") < everything.index("invoice.paid")
    )
    assert types_on((await vera.get("/events?pattern=invoice.*")).text) == ["invoice.sent", "invoice.paid"]


async def test_a_bad_pattern_is_named_and_everything_shown(vera: Browser, site: Site) -> None:
    await tell(site, "invoice.paid")
    text = (await vera.get("/events", params={"pattern": "Invoice.>.x"})).text
    assert 'aria-invalid="true"' in text
    assert "A pattern may hold &gt; only as its last word." in text
    assert "invoice.paid" in types_on(text)


async def test_the_first_page_follows_live_until_told_not_to(vera: Browser) -> None:
    assert 'data-live="events:invoice.@"' in (await vera.get("/events?pattern=invoice.*")).text
    assert 'data-live="events:' not in (await vera.get("/events?pattern=invoice.*&follow=no")).text


async def test_pages_lead_through_all_events_and_older_ones_stand_still(vera: Browser, site: Site) -> None:
    for n in range(12):
        await tell(site, *["invoice.paid"] * 10, n=n)
    path, seen = "/events?pattern=invoice.>", 0
    for _ in range(3):
        text = (await vera.get(path)).text
        seen += len(types_on(text))
        older = re.search(r'href="([^"]+)" rel="next"', text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert (seen, path) == (120, "")


async def test_people_are_for_admins(vera: Browser, site: Site) -> None:
    await tell(site, "doc.updated", doctype="User")
    admin = await site.signed_in("Root", "admin")
    assert "doc.updated" not in types_on((await vera.get("/events?pattern=doc.updated")).text)
    assert "doc.updated" in types_on((await admin.get("/events?pattern=doc.updated")).text)


async def test_one_published_by_hand_is_told_in_ones_name_and_shows_what_it_started(
    ada: Browser, site: Site
) -> None:
    data = {"event_type": "invoice.paid", "doctype": "Invoice", "doc_id": "7", "data": '{"n": 1}'}
    answer = await ada.post("/events/publish", data)
    assert answer.status_code == 303
    shown = (await ada.get(answer.headers["location"])).text
    assert "Ada" in shown
    assert "Invoice 7" in shown
    assert "None. A job waits for events with" in shown
    site.engine.registry.add(books.definition)
    await hand_over(site.database, [JobStarts(Registry([books]))])
    assert re.search(
        r'href="/job-logs/[0-9a-f-]{36}">books</a>', (await ada.get(answer.headers["location"])).text
    )
    [entry] = await site.audited(action="event.publish")
    assert entry.actor == "Ada"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"event_type": ""}, "is needed"),
        ({"event_type": "job.failed"}, "the engine&#39;s own"),
        ({"event_type": "invoice.paid", "data": "{"}, "is not JSON"),
        ({"event_type": "invoice.paid", "data": "[1]"}, "must be a JSON object"),
        ({"event_type": "invoice.paid", "doctype": "User", "doc_id": "1"}, "the desk&#39;s own"),
    ],
)
async def test_a_refused_form_keeps_what_was_typed(ada: Browser, typed: dict[str, str], said: str) -> None:
    answer = await ada.post("/events/publish", {"data": "{}", **typed})
    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{typed["event_type"]}"' in answer.text


async def test_an_event_that_is_gone_leads_back_to_the_list(vera: Browser) -> None:
    answer = await vera.get("/events/019ab1c2-7d3e-7f00-8a11-2b3c4d5e6f70")
    assert (answer.status_code, answer.headers["location"]) == (303, "/events")
