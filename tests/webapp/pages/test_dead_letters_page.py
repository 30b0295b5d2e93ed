"""Dead letters in the browser: groups by cause, retried, retried edited, resolved, and back when it happens again."""

from __future__ import annotations

import html
import re

from tests.webapp.pages.conftest import Crew, flash_of
from tests.webapp.pages.test_overview_page import finish
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site

GROUP = "f" * 32


def hidden(text: str, action: str) -> dict[str, str]:
    """The fields of the form that holds this action."""
    forms = re.findall(r"<form[^>]*>.*?</form>", text, re.DOTALL)
    form = next(form for form in forms if f'name="action" value="{action}"' in form)
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
    return {name: html.unescape(value) for name, value in fields.items() if name != "_csrf"}


async def confirm(site: Site, ada: Browser, preview: str, action: str) -> str:
    started = await ada.post("/job-logs/bulk", {**hidden(preview, action), "reason": "fixed"})
    assert started.headers["location"].startswith("/operations/"), started.text
    await finish(site.database)
    return (await ada.get(started.headers["location"])).text


async def test_a_group_shows_its_cause_its_times_and_its_jobs(crew: Crew, vera: Browser, rows: Rows) -> None:
    assert "No dead letters." in (await vera.get("/dead-letters")).text
    ids = await rows.add(
        rows.job(status="failed", ago_s=500),
        rows.job(status="failed", ago_s=5),
        rows.job("add", status="failed", error="KeyError: 'x'", error_fingerprint="e" * 32),
    )
    text = (await vera.get("/dead-letters")).text
    assert re.findall(r'class="row-link" href="(/dead-letters/[^"]+)">([^<]+)<', text) == [
        (f"/dead-letters/{GROUP}", "ValueError: no such address"),
        (f"/dead-letters/{'e' * 32}", "KeyError: &#39;x&#39;"),
    ]
    page = (await vera.get(f"/dead-letters/{GROUP}")).text
    assert [f'href="/job-logs/{job_id}"' in page for job_id in ids] == [True, True, False]
    assert "Retry all" not in page
    everything = re.search(r'<a href="([^"]+)">All in Job logs', page)
    assert everything
    assert (await vera.get(html.unescape(everything[1]))).text.count('id="job-row-') == 2


async def test_a_group_is_retried_by_a_preview_that_leaves_out_what_came_later(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    ids = await rows.add(*(rows.job(status="failed", ago_s=n + 5) for n in range(3)))
    page = (await ada.get(f"/dead-letters/{GROUP}")).text
    later = await rows.add(rows.job(status="failed", ago_s=0))
    preview = (await ada.post("/job-logs/bulk", hidden(page, "retry"))).text
    assert "Retry 3 jobs?" in preview
    await confirm(site, ada, preview, "retry")
    assert [(await crew.job(one)).status for one in (*ids, *later)] == ["queued"] * 3 + ["failed"]


async def test_a_resolved_group_is_gone_until_it_happens_again(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    await rows.add(rows.job(status="failed"), rows.job(status="failed"))
    page = (await ada.get(f"/dead-letters/{GROUP}")).text
    preview = (await ada.post("/job-logs/bulk", hidden(page, "resolve"))).text
    assert "Resolve 2 jobs?" in preview
    assert "fixed" in await confirm(site, ada, preview, "resolve")
    assert "No dead letters." in (await ada.get("/dead-letters")).text
    gone = await ada.get(f"/dead-letters/{GROUP}", follow_redirects=True)
    assert "Nothing of that group is left" in flash_of(gone)
    await rows.add(rows.job(status="failed", ago_s=0))
    assert "Back after it was resolved" in (await ada.get("/dead-letters")).text


async def test_a_group_is_retried_with_an_argument_replaced_and_mistakes_are_named(
    site: Site, crew: Crew, ada: Browser, rows: Rows
) -> None:
    await rows.add(
        rows.job(status="failed", ago_s=9), rows.job(status="failed", ago_s=2, args={"to": "bob@example.com"})
    )
    url = f"/dead-letters/{GROUP}/edit"
    assert "bob@example.com" in (await ada.get(url)).text
    for typed, said in (
        ("{", "args"), ("[]", "must be a JSON object"), ("{}", "names no argument"), ('{"to": 5}', "to"),
        ('{"nosuch": 1}', "nosuch"),
    ):  # fmt: skip
        refused = await ada.post(url, {"args": typed})
        assert (refused.status_code, said in refused.text) == (422, True), typed
        assert html.escape(typed, quote=False).replace('"', "&#34;") in refused.text, typed
    preview = await ada.post(url, {"args": '{"to": "new@example.com"}'})
    assert "Run again 2 jobs?" in preview.text
    await confirm(site, ada, preview.text, "rerun")
    new = [job for job in await crew.jobs() if job.status == "queued"]
    assert [job.args["to"] for job in new] == ["new@example.com"] * 2
    assert "No dead letters." in (await ada.get("/dead-letters")).text


async def test_attention_leads_to_the_group(crew: Crew, ada: Browser, rows: Rows) -> None:
    await rows.add(rows.job(status="failed"))
    assert f'href="/dead-letters/{GROUP}"' in (await ada.get("/")).text
