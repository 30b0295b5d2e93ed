"""A job whose every text wants to be markup, on every page, fragment and export that shows it (cases 28, 30 and 32)."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.webapp.rows import Rows
from tests.webapp.security.test_hostile_text import HOSTILE, Markup
from tests.webapp.site import Browser, Site
from worker.db.base import utc_now
from worker.joblogs.models import JobAttempt, JobLogLine
from worker.jobs.models import Queue

TABS = ("error", "attempts", "arguments", "result", "logs", "trace", "audit", "notes")


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_job_made_of_markup_is_text_everywhere(site: Site, text: str) -> None:
    browser, rows = await site.signed_in(), Rows(site.database)
    job_ids = [
        await _job(site, rows, text, status)
        for status in ("failed", "success", "running", "queued", "cancelled")
    ]
    await rows.offer(text, doc=text, queue="default", module=text[:100])
    await rows.worker(host=text, version=text[:40], queues=[text], jobs=[text])
    name = quote(text, safe="")
    paths = [
        "/",
        "/job-logs",
        f"/job-logs?q={name}",
        f"/job-logs?q=job:{name}",
        "/jobs",
        f"/jobs/{name}",
        f"/jobs/{name}/run",
        "/workers",
    ]
    paths += [f"/job-logs/{job_id}?tab={tab}" for job_id in job_ids[:2] for tab in TABS]
    paths += [f"/job-logs/{job_ids[3]}/edit", "/queues/default/pause", f"/jobs/{name}/pause"]
    shown = 0
    for path in paths:
        shown += await _is_text(browser, path, text)
    assert shown >= 5, "the text was hardly on any page: this test looks at nothing"


async def test_the_api_gives_it_back_as_it_was_and_as_json(site: Site) -> None:  # case 30
    rows, token = Rows(site.database), await site.token("viewer")
    for text in HOSTILE:
        job_id = await _job(site, rows, text, "failed")
        answer = await site.browser().get(
            f"/api/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["args"][text] == [text, {text: text}]


async def test_an_exported_job_is_no_formula(site: Site) -> None:  # case 32
    browser, rows = await site.signed_in(), Rows(site.database)
    for text in ("=1+1", "@x", "+1", "-1"):
        await rows.add(rows.job(text, "failed", error=text, note=text))
    exported = await browser.get("/job-logs/export.csv")
    assert exported.status_code == 200
    assert "=1+1" in exported.text
    assert not re.search(r'(?m)(^|,)"?[=@+]', exported.text)


async def _job(site: Site, rows: Rows, text: str, status: str) -> object:
    values = rows.job(
        text, status, args={text: [text, {text: text}]}, reason=text[:40], tags=[text], note=text
    )
    values |= {
        "user_id": text,
        "unique_key": None,
        "correlation_id": text,
        "caused_by": text,
        "progress_note": text,
    }
    if status == "running":
        values |= {"progress": 0.5}
    if status == "failed":
        values |= {"error": text, "traceback": f"Traceback\n  File {text}\n{text}"}
    if status == "success":
        values |= {"result": {text: [text]}}
    (job_id,) = await rows.add(values)
    now = utc_now()
    async with site.database.transaction() as session:
        session.add(
            JobAttempt(
                job_id=job_id,
                epoch=1,
                attempt=1,
                outcome="failed",
                reason=text[:40],
                ended_at=now,
                error=text,
                traceback=text,
            )
        )
        session.add(
            JobLogLine(job_id=job_id, epoch=1, seq=1, at=now, level="ERROR", logger=text, message=text)
        )
        await session.merge(
            Queue(name="default", paused_at=now, paused_by=text, pause_reason=text, created_at=now)
        )
    return job_id


async def _is_text(browser: Browser, path: str, text: str) -> bool:
    answer = await browser.get(path)
    assert answer.status_code < 500, path
    assert Markup(answer.text).dangers == [], path
    assert "<script>window" not in answer.text
    return text in Reader.text_of(answer.text)


class Reader(Markup):
    """What a person reads on the page."""

    def __init__(self, html: str) -> None:
        self.pieces: list[str] = []
        super().__init__(html)

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @classmethod
    def text_of(cls, html: str) -> str:
        return "".join(cls(html).pieces)
