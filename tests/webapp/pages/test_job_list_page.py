"""The list of job logs in the browser."""

from __future__ import annotations

import csv
import io
import json
import re

from tests.webapp.pages.conftest import Crew
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site


def shown(text: str) -> list[str]:
    """The ids of the rows on a page, in order."""
    return re.findall(r'<tr class="row[^"]*" id="job-row-([0-9a-f-]{36})"', text)


async def test_pages_lead_forth_and_back(ada: Browser, rows: Rows) -> None:
    ids = [str(one) for one in await rows.add(*(rows.job(ago_s=200 - n) for n in range(60)))][::-1]
    first = (await ada.get("/job-logs")).text
    assert shown(first) == ids[:50]
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    second = (await ada.get(older[1].replace("&amp;", "&"))).text
    assert shown(second) == ids[50:]
    newer = re.search(r'href="([^"]+)" rel="prev"', second)
    assert newer
    assert shown((await ada.get(newer[1].replace("&amp;", "&"))).text) == ids[:50]


async def test_what_is_typed_becomes_chips_and_the_address_finds_the_same_again(
    ada: Browser, rows: Rows
) -> None:
    wanted, *_ = await rows.add(
        rows.job(queue="mail", status="failed"), rows.job(queue="mail"), rows.job(status="failed")
    )
    answer = await ada.get("/job-logs", params={"q": "status:failed queue:mail"})
    assert shown(answer.text) == [str(wanted)]
    assert '<span class="chip-key">queue</span>mail' in answer.text
    assert re.search(r'href="/job-logs\?status=failed[^"]*" aria-current="page"', answer.text)
    assert shown((await ada.get("/job-logs?status=failed&f=queue:mail")).text) == [str(wanted)]


async def test_a_mistake_in_the_search_is_named_and_stays_in_the_box(ada: Browser, rows: Rows) -> None:
    await rows.add(rows.job())
    answer = await ada.get("/job-logs", params={"q": "colour:red"})
    assert answer.status_code == 422
    assert "colour: is not a word of this search. Allowed are status, queue" in answer.text
    assert 'value="colour:red"' in answer.text
    assert shown(answer.text) == []


async def test_an_unknown_status_or_order_is_refused_by_name(ada: Browser) -> None:
    for query in ("status=broken", "sort=colour", "cursor=nonsense"):
        answer = await ada.get(f"/job-logs?{query}")
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.text


async def test_an_empty_list_tells_nothing_yet_from_nothing_found(ada: Browser, rows: Rows) -> None:
    assert "No job has been enqueued yet." in (await ada.get("/job-logs")).text
    await rows.add(rows.job())
    assert "No job log matches." in (await ada.get("/job-logs?q=queue:nowhere")).text


async def test_tabs_count_what_there_is_and_leave_out_what_there_is_not(ada: Browser, rows: Rows) -> None:
    await rows.add(rows.job(), rows.job(), rows.job(status="failed"))
    text = (await ada.get("/job-logs")).text
    tabs = re.findall(r'<a href="[^"]*"[^>]*>(\w+) <span class="tab-count[^"]*">(\d+)</span>', text)
    assert tabs == [("Success", "2"), ("Failed", "1")]


async def test_hidden_columns_stay_hidden_from_page_to_page(ada: Browser, rows: Rows) -> None:
    await rows.add(rows.job())
    text = (await ada.get("/job-logs?columns=1&show=age&show=took")).text
    assert 'class="log hides-queue hides-attempt"' in text
    assert "hide=queue%2Cattempt" in text


async def test_a_viewer_sees_no_buttons(vera: Browser, rows: Rows) -> None:
    await rows.add(rows.job(status="failed"))
    text = (await vera.get("/job-logs")).text
    assert len(shown(text)) == 1
    assert "formaction" not in text
    assert 'form="bulk"' not in text


async def test_an_export_is_whole_safe_for_spreadsheets_and_on_record(
    site: Site, ada: Browser, rows: Rows
) -> None:
    await rows.add(
        *(rows.job(ago_s=n + 10) for n in range(4)),
        rows.job("evil", ago_s=1, args={"to": "x"}, note="=HYPERLINK(1)", user_id="@SUM(A1)", result="-1+2"),
    )
    table = list(
        csv.DictReader(io.StringIO((await ada.get("/job-logs/export.csv")).content.decode("utf-8-sig")))
    )
    assert len(table) == 5
    assert (table[0]["note"], table[0]["user"], table[0]["result"]) == (
        "'=HYPERLINK(1)",
        "'@SUM(A1)",
        "'-1+2",
    )
    assert json.loads(table[0]["args"]) == {"to": "x"}
    plain = json.loads((await ada.get("/job-logs/export.json?f=job:evil")).content)
    assert [one["note"] for one in plain] == ["=HYPERLINK(1)"]
    entries = await site.audited(action="job.export")
    assert [entry.after for entry in entries] == [
        {"format": "csv", "filter": ""},
        {"format": "json", "filter": "job:evil"},
    ]


async def test_nothing_that_a_job_stores_becomes_markup(crew: Crew, ada: Browser, rows: Rows) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    await rows.offer(
        evil, doc=evil, queue="default", parameters=[{"name": evil, "kind": "text", "help": evil}]
    )
    ids = await rows.add(
        rows.job(
            evil, status="failed", queue="default", args={evil: evil, "url": "javascript:alert(3)"}, error=evil,
            traceback=f'  File "{evil}"\n{evil}', tags=[evil], note=evil, user_id=evil, reason=evil[:40], unique_key=evil,
            error_fingerprint="e" * 32, progress_note=evil, correlation_id=evil, caused_by=evil,
        ),
        rows.job(evil, result={evil: [evil, {"href": "javascript:alert(4)"}]}),
    )  # fmt: skip
    pages = ["/", "/job-logs", "/jobs", "/workers", f"/job-logs?q={evil}"]
    pages += [
        f"/job-logs/{ids[0]}?tab={tab}" for tab in ("error", "args", "attempts", "trace", "notes", "logs")
    ]
    pages += [
        f"/job-logs/{ids[1]}?tab=result",
        f"/job-logs/{ids[0]}/edit",
        f"/job-logs/{ids[0]}/edit?as=json",
    ]
    for page in pages:
        answer = await ada.get(page)
        assert answer.status_code in (200, 422), page
        assert "<script>alert" not in answer.text, page
        assert "<img src=x" not in answer.text, page
        assert not re.search(r'(?:href|action|src)="\s*javascript:', answer.text), page


async def test_a_page_says_from_where_it_begins_and_what_came_before_it_since(
    ada: Browser, rows: Rows
) -> None:
    def begin(text: str) -> str:
        found = re.search(r'data-begin="(from~[^"]+)"', text)
        assert found
        return found[1]

    def newer(text: str) -> str:
        found = re.search(r'id="job-newer"><a href="[^"]*">([^<]+)<', text)
        return found[1] if found else ""

    await rows.add(*(rows.job(ago_s=100) for _ in range(3)))
    for query in ({}, {"sort": "duration"}, {"q": "args.to:ada"}):
        plain = (await ada.get("/job-logs", params=query)).text
        again = (await ada.get("/job-logs", params={**query, "cursor": begin(plain)})).text
        assert shown(again) == shown(plain)
        assert ("data-follow" in again) == ("data-follow" in plain)
        if "q" not in query:
            assert ('rel="prev"' in again, newer(again)) == (False, "")
    first = begin((await ada.get("/job-logs")).text)
    later = await rows.add(*(rows.job(ago_s=1) for _ in range(120)))
    back = (await ada.get("/job-logs", params={"cursor": first})).text
    assert len(shown(back)) == 3
    assert not {str(one) for one in later} & set(shown(back))
    assert newer(back) == "100+ new, show"
    assert "data-follow" not in back
    searched = (await ada.get("/job-logs", params={"q": "args.to:ada", "cursor": first})).text
    assert newer(searched) == "Show from the newest"
