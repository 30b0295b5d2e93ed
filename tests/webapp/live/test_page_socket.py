"""What a page gets: the end of what it shows, whichever process made the change and whatever was lost on the way."""

from __future__ import annotations

import asyncio
import time

from tests.webapp.live.site import Site, site
from worker.db.session import emit


async def test_a_change_through_one_process_appears_in_a_page_of_the_other(two):
    await a_change_appears_in_the_other(*two)


async def test_it_does_on_redis_too(two_on_redis):
    await a_change_appears_in_the_other(*two_on_redis)


async def a_change_appears_in_the_other(here: Site, there: Site) -> None:
    job = await here.job()
    async with there.page() as page:
        await page.watch((f"job-row:{job}", "1"))
        await page.told(mode="live")
        await here.move(job, status="running")
        await page.shows('data-rev="2"')
        await here.move(job, status="success")
        await page.shows('data-rev="3"')
        assert f"""<hx-partial hx-target="[data-live='job-row:{job}']" hx-swap="outerMorph">""" in page.html
        assert "Success" in page.html


async def test_an_event_told_through_one_process_appears_in_a_page_of_the_other(two):
    here, there = two
    async with there.page(role="viewer") as page, there.page(role="admin") as admin:
        for each in (page, admin):
            await each.watch(("events:invoice.@", "0"), ("events:doc.@", "0"))
            await each.told(mode="live")
        async with here.engine.database.transaction() as session:
            emit(session, "doc.updated", {"doctype": "User"})
            emit(session, "invoice.paid", {"name": "seven"})
        await page.shows("seven")
        await admin.shows("doc.updated")
        assert "doc.updated" not in page.html


async def test_a_job_that_ended_before_the_socket_opened_still_shows_its_end(two):
    here, there = two
    job = await here.job()
    await here.move(job, status="running")
    await here.move(job, status="success")
    async with there.page() as page:
        await page.watch((f"job-row:{job}", "1"))
        await page.shows("Success")


async def test_what_the_page_has_already_is_not_sent_again(one):
    job = await one.job()
    other = await one.job()
    async with one.page() as page:
        await page.watch((f"job-row:{job}", "1"), (f"job-row:{other}", "0"))
        await page.shows(str(other))
        await page.watch((f"job-row:{job}", "1"), (f"job-row:{other}", "1"))
        await one.move(other, status="running")
        await page.shows('data-rev="2"')
        assert str(job) not in page.html


async def test_a_lost_message_is_made_up_for_by_the_next_beat(one):
    job = await one.job()
    async with one.page() as page:
        await page.watch((f"job-row:{job}", "1"))
        await page.told(mode="live")
        await one.move(job, tell=False, status="success")
        await page.watch((f"job-row:{job}", "1"))
        await page.shows("Success")


async def test_connecting_again_brings_what_was_missed(two):
    here, there = two
    job = await here.job()
    token = await there.sign_in()
    async with there.page(token) as page:
        await page.watch((f"job-row:{job}", "1"))
        await here.move(job, status="running")
        await page.shows('data-rev="2"')
    await here.move(job, status="success")
    async with there.page(token) as page:
        await page.watch((f"job-row:{job}", "2"))
        await page.shows("Success")


async def test_a_page_is_sent_only_what_it_shows(one):
    seen, unseen = await one.job(), await one.job()
    async with one.page() as page:
        await page.watch((f"job-row:{seen}", "1"))
        await page.told(mode="live")
        await one.move(unseen, status="running")
        await one.move(seen, status="running")
        await page.shows(str(seen))
        assert str(unseen) not in page.html


async def test_readers_get_no_buttons_and_operators_do(one):
    job = await one.job()
    async with one.page(role="viewer") as viewer, one.page(role="operator") as operator:
        for page in (viewer, operator):
            await page.watch((f"job-row:{job}", "1"))
            await page.told(mode="live")
        await one.move(job, status="failed", error="boom")
        await viewer.shows("boom")
        await operator.shows("boom")
        assert "<button" not in viewer.html
        assert f"/job-logs/{job}/retry" in operator.html


async def test_one_tick_renders_once_for_all_who_look(one, monkeypatch):
    job = await one.job()
    rendered = []
    real = one.live.quick.sources["job-row"].render
    one.live.quick.sources["job-row"].render = lambda template, context: (
        rendered.append(template) or real(template, context)
    )
    token = await one.sign_in()
    async with one.page(token) as a, one.page(token) as b, one.page(token) as c:
        for page in (a, b, c):
            await page.watch((f"job-row:{job}", "1"))
            await page.told(mode="live")
        await one.move(job, status="running")
        for page in (a, b, c):
            await page.shows('data-rev="2"')
        assert len(rendered) == 1


async def test_what_a_job_stores_cannot_leave_its_row(one):
    evil = "</hx-partial><script>window.x=1</script><hx-partial hx-target='body'>"
    job = await one.job(name="add", args={"a": evil})
    async with one.page() as page:
        await page.watch((f"job-row:{job}", "0"))
        await page.shows('data-rev="1"')
        await one.move(job, status="failed", error=evil)
        await page.shows('data-rev="2"')
        assert "<script" not in page.html
        assert page.html.count("<hx-partial") == page.html.count("</hx-partial>") == 2


async def test_counters_come_at_most_once_a_second_and_only_when_they_change(one):
    async with one.page() as page:
        await page.watch(("counters:all", ""))
        await page.shows("counters")
        began, before = time.monotonic(), len(page.frames)
        for _ in range(20):
            job = await one.job(status="running")
            await asyncio.sleep(0.05)
        await page.shows('data-count="running">20<')
        at_once = 1  # the first change of a quiet second
        assert 1 <= len(page.frames) - before <= at_once + (time.monotonic() - began) / 0.95
        quiet = len(page.frames)
        await one.move(job, progress=0.5)
        await page.watch(("counters:all", page.html.rsplit('data-rev="', 1)[1].split('"')[0]))
        await asyncio.sleep(1.3)
        assert len(page.frames) == quiet


async def test_progress_is_a_change_like_any_other(one):
    job = await one.job(status="running", started_at=None)
    async with one.page() as page:
        await page.watch((f"job-row:{job}", "1"))
        await one.move(job, progress=0.42, progress_note="page 42 of 100")
        await page.shows("page 42 of 100")


async def test_without_a_broker_pages_are_polled_for_and_say_so(sqlite_url, own_nats_server, tmp_path):
    async with site(sqlite_url, tmp_path, nats_url=own_nats_server.url) as here, here.page() as page:
        job = await here.job()
        await page.watch((f"job-row:{job}", "1"))
        await page.told(mode="live")
        own_nats_server.kill()
        await page.told(mode="polling")
        await here.move(job, tell=False, status="success")
        await page.shows("Success")
        page.messages.clear()
        own_nats_server.start()
        await page.told(mode="live")
