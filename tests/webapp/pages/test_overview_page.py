"""Overview, queues, workers and bulk actions in the browser."""

from __future__ import annotations

import re
from dataclasses import replace
from uuid import uuid4

import sqlalchemy as sa

from tests.webapp.pages.conftest import Crew, flash_of
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site
from webapp.queries.attention import Surroundings, attention
from worker.db.base import utc_now
from worker.db.session import Database
from worker.events.models import OutboxRow
from worker.joblogs import bulk
from worker.process.models import Worker


async def test_all_is_well_only_when_nothing_needs_anybody(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    assert "All is well." in (await ada.get("/")).text
    await rows.add(
        rows.job(status="failed", error="smtp down", error_fingerprint="a" * 32),
        rows.job(status="queued", queue="video", ago_s=900),
        rows.job(status="queued", ago_s=900),
        rows.job("unknown", status="queued"),
    )
    await site.app.state.cached.forget()
    text = (await ada.get("/")).text
    titles = re.findall(
        r'<li class="is-\w+">.*?<a class="row-link" href="([^"]+)">([^<]+)</a>', text, re.DOTALL
    )
    assert [title for _, title in titles] == [
        "No worker takes the queue video",
        "No worker can run the job unknown",
        "The queue default is late",
        "send_email: smtp down",
    ]
    for href, _ in titles:
        assert (await ada.get(href.replace("&amp;", "&"))).status_code == 200


def test_a_broker_that_is_away_stands_first_and_says_that_nothing_is_lost() -> None:
    around = Surroundings(False, False, 300.0, 10_000, {})
    (first,) = attention([], [], around, utc_now())
    assert (first.kind, first.title) == ("failed", "The broker cannot be reached")
    assert "safe" in first.detail
    (only,) = attention([], [], replace(around, broker_connected=True), utc_now())
    assert only.title == "Live updates come every second"


async def test_each_number_of_the_failure_grid_leads_to_as_many_rows(
    crew: Crew, ada: Browser, rows: Rows
) -> None:
    await rows.add(*(rows.job(status="failed", ago_s=ago) for ago in (60, 7_200, 80_000)))
    text = (await ada.get("/")).text
    cells = re.findall(r'<a class="count-link[^"]*" href="(/job-logs\?status=failed[^"]+)">(\d+)</a>', text)
    assert [int(n) for _, n in cells] == [1, 2, 3, 3, 3]
    for href, n in cells:
        rows_there = (await ada.get(href.replace("&amp;", "&"))).text
        assert rows_there.count('id="job-row-') == int(n)


async def test_a_queue_is_paused_with_a_reason_limited_and_resumed(crew: Crew, ada: Browser) -> None:
    assert "What runs goes on" in (await ada.get("/queues/mail/pause")).text
    answer = await ada.post("/queues/mail/pause", {"reason": "smtp is down"}, follow_redirects=True)
    assert flash_of(answer) == "success: Paused the queue mail."
    assert 'action="/queues/mail/resume"' in answer.text
    assert "Paused by Ada: smtp is down" in (await ada.get("/")).text
    answer = await ada.post("/queues/mail/resume", headers={"HX-Request": "true"})
    assert "hx-target=\"[data-live='queue:mail']\"" in answer.text
    assert "Paused by" not in answer.text
    await ada.post("/queues/mail/limit", {"concurrency": "4"})
    assert "/4" in (await ada.get("/")).text
    refused = await ada.post("/queues/mail/limit", {"concurrency": "lots"})
    assert (refused.status_code, 'value="lots"' in refused.text) == (422, True)
    assert "must be a whole number" in refused.text
    assert 'value="4"' in (await ada.get("/queues/mail/limit")).text


async def test_a_job_is_limited_by_number_and_by_rate_and_what_was_typed_stays(
    crew: Crew, ada: Browser
) -> None:
    limits = {"concurrency": "3", "rate": "30", "per": "m", "burst": "2"}
    answer = await ada.post("/jobs/send_email/limit", limits, follow_redirects=True)
    assert flash_of(answer) == "success: The limits are set."
    assert "30 a minute, 2 at once" in answer.text
    form = (await ada.get("/jobs/send_email/limit")).text
    assert ('value="30"' in form, '<option value="m" selected>' in form) == (True, True)
    refused = await ada.post("/jobs/send_email/limit", {**limits, "rate": "-1", "concurrency": "0"})
    assert (refused.status_code, 'value="-1"' in refused.text) == (422, True)
    assert "from 1 a day to 10000 a second" in refused.text
    refused = await ada.post("/jobs/send_email/limit", {**limits, "concurrency": "0"})
    assert "from 1 to 100000" in refused.text
    lifted = await ada.post("/jobs/send_email/limit", dict.fromkeys(limits, ""), follow_redirects=True)
    assert "30 a minute" not in lifted.text
    gone = await ada.post("/jobs/nosuch/limit", limits, follow_redirects=True)
    assert "not there" in flash_of(gone)


async def test_a_probe_goes_all_the_way_round(crew: Crew, ada: Browser) -> None:
    refused = await ada.post("/overview/probe", follow_redirects=True)
    assert "No worker" in flash_of(refused)


async def test_the_workers_page_shows_who_runs_what_and_asks_one_to_drain(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    (running,) = await rows.add(rows.job(status="running", worker_id=crew.worker_id))
    await rows.add(rows.job(status="queued", queue="video"))
    text = (await ada.get("/workers")).text
    assert "No worker takes the queue video." in text
    assert "No worker takes the queue default" not in text
    assert f'href="/job-logs/{running}"' in text
    assert "NATS JetStream" in text
    answer = await ada.post(f"/workers/{crew.worker_id}/drain", follow_redirects=True)
    assert "will drain" in answer.text
    (entry,) = await site.audited(action="worker.drain")
    assert entry.after == {"wish": "drain"}
    answer = await ada.post(f"/workers/{crew.worker_id}/restart", follow_redirects=True)
    assert "is leaving already: it was asked to drain" in answer.text
    assert len(await site.audited(action="worker.restart")) == 0


async def test_the_workers_page_tells_of_dedicated_workers_and_of_results_that_came_too_late(
    site: Site, crew: Crew, ada: Browser
) -> None:
    text = (await ada.get("/workers")).text
    assert "priorities" not in text
    assert "refused" not in text
    async with crew.desk.engine.database.transaction() as session:
        await session.execute(
            sa.update(Worker)
            .where(Worker.id == crew.worker_id)
            .values(priorities="0-3", stale_finishes=2, max_memory_mb=512, memory_mb=77.2, max_jobs=1000)
        )
    text = (await ada.get("/workers")).text
    assert "priorities 0-3" in text
    assert "2 late results refused" in text
    assert "replaced after 1\u202f000 jobs" in text
    assert "of 512 MB" in text


async def test_the_workers_page_tells_why_a_worker_has_ended_and_that_none_is_left(
    crew: Crew, ada: Browser
) -> None:
    assert "No worker takes jobs." not in (await ada.get("/workers")).text
    async with crew.desk.engine.database.transaction() as session:
        await session.execute(
            sa.update(Worker).values(
                ended_at=utc_now(), end_reason="an operator asked for a <drain>", memory_mb=77.2
            )
        )
    text = (await ada.get("/workers")).text
    assert "No worker takes jobs." in text
    assert "an operator asked for a &lt;drain&gt;" in text
    assert "77 MB" not in text


async def finish(database: Database) -> None:
    while await bulk.run_pending(database):
        continue


async def test_a_bulk_action_is_previewed_leaves_out_what_came_later_and_reports(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    ids = await rows.add(*(rows.job(status="failed", ago_s=n + 5) for n in range(3)), rows.job(ago_s=60))
    page = (await ada.get("/job-logs?status=failed")).text
    fields = dict(re.findall(r'<input type="hidden" name="(cutoff|query)" value="([^"]*)"', page))
    later = await rows.add(rows.job(status="failed", ago_s=0))
    form = {**fields, "action": "retry", "scope": "matching"}
    preview = await ada.post("/job-logs/bulk", form)
    assert preview.status_code == 200
    assert "Retry 3 jobs?" in preview.text
    assert "1, not part of this" in preview.text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', preview.text))
    hidden.pop("_csrf", None)
    started = await ada.post("/job-logs/bulk", {**hidden, "reason": "smtp is back"})
    assert started.headers["location"].startswith("/operations/")
    await finish(site.database)
    report = (await ada.get(started.headers["location"])).text
    assert "smtp is back" in report
    assert [(await crew.job(one)).status for one in ids] == ["queued"] * 3 + ["success"]
    assert (await crew.job(later[0])).status == "failed"


async def test_a_bulk_action_on_a_selection_names_what_it_cannot_do(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    ids = await rows.add(rows.job(status="failed"), rows.job())
    form = {"action": "retry", "id": [str(one) for one in ids], "cutoff": ""}
    preview = await ada.post("/job-logs/bulk", form)
    assert "Retry 2 jobs?" in preview.text
    assert "1, they cannot be retried as they are" in preview.text
    nothing = await ada.post("/job-logs/bulk", {"action": "retry"}, follow_redirects=True)
    assert flash_of(nothing).startswith("failed: ")


async def test_the_feed_tells_a_lost_worker_from_a_retry(crew: Crew, ada: Browser, site: Site) -> None:
    data = {"job_id": str(uuid4()), "job_name": "send_email", "queue": "mail"}
    event = {
        "event_id": str(uuid4()),
        "event_type": "job.lost",
        "timestamp": utc_now().isoformat(),
        "data": data,
    }
    async with site.database.transaction() as session:
        session.add(OutboxRow(events=[event], created_at=utc_now()))
    feed = (await ada.get("/")).text.partition('id="feed"')[2]
    assert "Worker lost" in feed
    assert "Retrying" not in feed
