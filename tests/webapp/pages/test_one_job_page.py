"""One job log: what it shows, and what its buttons do."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from uuid import uuid4

from tests.webapp.pages import jobs
from tests.webapp.pages.conftest import Crew, flash_of, job_id_of
from tests.webapp.rows import Rows
from tests.webapp.site import Browser, Site
from worker.db.base import utc_now

HX = {"HX-Request": "true", "HX-Current-URL": "http://127.0.0.1:8000/job-logs"}


async def failed_mail(crew: Crew) -> str:
    jobs.BROKEN.add("ada@example.com")
    job_id = await crew.enqueue("send_email", to="ada@example.com")
    await crew.work()
    jobs.BROKEN.clear()
    return str(job_id)


async def test_a_failed_job_opens_on_its_error_with_the_way_it_took(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    text = (await ada.get(f"/job-logs/{job_id}")).text
    assert "no such address: ada@example.com" in text
    assert "Traceback (most recent call last)" in text
    path = re.findall(r'class="path-step is-(\w+)( is-taken)?( is-current)?', text)
    assert path == [
        ("queued", " is-taken", ""),
        ("running", " is-taken", ""),
        ("failed", " is-taken", " is-current"),
    ]
    tabs = re.findall(rf'href="/job-logs/{job_id}\?tab=(\w+)"', text)
    assert tabs == ["error", "attempts", "args", "notes"]


async def test_retry_queues_it_again_once_however_often_it_is_clicked(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    epoch = (await crew.job(job_id)).epoch
    answer = await ada.post(f"/job-logs/{job_id}/retry", {"epoch": str(epoch)})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/job-logs/{job_id}")
    again = await ada.post(f"/job-logs/{job_id}/retry", {"epoch": str(epoch)}, follow_redirects=True)
    assert flash_of(again) == "success: Queued again."
    assert (await crew.job(job_id)).epoch == epoch + 1
    await crew.work()
    assert (await crew.job(job_id)).status == "success"
    attempts = (await ada.get(f"/job-logs/{job_id}?tab=attempts")).text
    assert "no such address" in attempts
    outcomes = re.findall(r'data-label="Outcome"><span class="status is-(\w+)"', attempts)
    assert outcomes == ["success", "failed"]


async def test_htmx_gets_the_fresh_row_and_header_instead_of_a_page(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    answer = await ada.post(f"/job-logs/{job_id}/retry", headers=HX)
    assert answer.status_code == 200
    assert f"hx-target=\"[data-live='job-row:{job_id}']\"" in answer.text
    assert f'id="job-header-{job_id}"' in answer.text
    assert "is-queued" in answer.text
    assert "Queued again." in answer.text
    assert "<html" not in answer.text


async def test_what_is_not_possible_any_more_says_so_in_place(crew: Crew, ada: Browser) -> None:
    job_id = str(await crew.enqueue("send_email", to="bob@example.com"))
    await crew.work()
    for action in ("retry", "cancel"):
        answer = await ada.post(f"/job-logs/{job_id}/{action}", follow_redirects=True)
        assert flash_of(answer).startswith("failed: Job ")
    assert (await crew.job(job_id)).status == "success"


async def test_cancel_ends_a_waiting_job_and_asks_a_running_one(crew: Crew, ada: Browser, rows: Rows) -> None:
    waiting = await crew.enqueue("send_email", to="bob@example.com")
    (running,) = await rows.add(rows.job(status="running", worker_id=crew.worker_id))
    answer = await ada.post(f"/job-logs/{waiting}/cancel", follow_redirects=True)
    assert flash_of(answer) == "success: Cancelled."
    answer = await ada.post(f"/job-logs/{running}/cancel", follow_redirects=True)
    assert "Asked to stop" in flash_of(answer)
    assert "Cancelling" in answer.text


async def test_run_again_makes_one_new_job_even_by_two_clicks_at_once(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    token = await ada.form_token()
    answers = await asyncio.gather(*(ada.post(f"/job-logs/{job_id}/rerun", token=token) for _ in range(2)))
    assert len({job_id_of(answer) for answer in answers}) == 1
    new = await crew.job(job_id_of(answers[0]))
    assert str(new.rerun_of) == job_id
    assert len(await crew.jobs()) == 2


async def test_edit_and_retry_runs_a_new_job_with_the_changed_arguments(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    form = (await ada.get(f"/job-logs/{job_id}/edit")).text
    assert 'value="ada@example.com"' in form
    refused = await ada.post(f"/job-logs/{job_id}/edit", {"arg.to": "", "arg.subject": "kept"})
    assert refused.status_code == 422
    assert 'value="kept"' in refused.text
    new = job_id_of(
        await ada.post(f"/job-logs/{job_id}/edit", {"arg.to": "bob@example.com", "arg.subject": "hi"})
    )
    await crew.work()
    job = await crew.job(new)
    assert (job.status, job.args, str(job.rerun_of)) == (
        "success",
        {"to": "bob@example.com", "subject": "hi"},
        job_id,
    )
    assert job_id in (await ada.get(f"/job-logs/{new}?tab=trace")).text


async def test_a_waiting_job_is_edited_in_place(crew: Crew, ada: Browser) -> None:
    job_id = await crew.enqueue("send_email", to="ada@example.com")
    answer = await ada.post(f"/job-logs/{job_id}/edit", {"args": '{"to": "bob@example.com"}'})
    assert job_id_of(answer) == str(job_id)
    assert (await crew.job(job_id)).args == {"to": "bob@example.com"}


async def test_delete_can_be_undone(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    answer = await ada.post(f"/job-logs/{job_id}/delete", follow_redirects=True)
    assert answer.url.path == "/job-logs"
    assert job_id not in re.findall(r'id="job-row-([0-9a-f-]+)"', answer.text)
    assert f'action="/job-logs/{job_id}/restore"' in answer.text
    answer = await ada.post(f"/job-logs/{job_id}/restore", follow_redirects=True)
    assert flash_of(answer) == "success: It is back."


async def test_resolve_and_notes_can_be_undone(crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    answer = await ada.post(f"/job-logs/{job_id}/resolve", follow_redirects=True)
    assert f'action="/job-logs/{job_id}/unresolve"' in answer.text
    assert (await crew.job(job_id)).resolved_at is not None
    await ada.post(f"/job-logs/{job_id}/unresolve")
    assert (await crew.job(job_id)).resolved_at is None
    await ada.post(f"/job-logs/{job_id}/note", {"note": "first", "tags": "a, b, a"})
    await ada.post(f"/job-logs/{job_id}/note", {"note": "second", "tags": ""})
    await ada.post(f"/job-logs/{job_id}/note/undo")
    job = await crew.job(job_id)
    assert (job.note, job.tags) == ("first", ["a", "b"])


async def test_log_lines_are_shown_from_the_end_and_searched(crew: Crew, ada: Browser) -> None:
    job_id = await crew.enqueue("talk", lines=600)
    await crew.work()
    text = (await ada.get(f"/job-logs/{job_id}?tab=logs")).text
    lines = re.findall(r'<span class="line-text">([^<]+)</span>', text)
    assert lines == [f"line {number}" for number in range(100, 600)]
    earlier = re.search(r'href="(/job-logs/[^"]+before=[^"]+)"', text)
    assert earlier
    text = (await ada.get(earlier[1].replace("&amp;", "&"))).text
    assert re.findall(r'<span class="line-text">([^<]+)</span>', text) == [
        f"line {number}" for number in range(100)
    ]
    found = (await ada.get(f"/job-logs/{job_id}?tab=logs&lines=line 59")).text
    assert len(re.findall(r'<span class="line-text">', found)) == 11


async def test_arguments_are_compared_with_the_last_success(crew: Crew, ada: Browser) -> None:
    await crew.enqueue("send_email", to="bob@example.com")
    await crew.work()
    job_id = await failed_mail(crew)
    text = (await ada.get(f"/job-logs/{job_id}?tab=args")).text
    assert "Different from the last success" in text
    assert "bob@example.com" in text


async def test_a_job_that_is_not_there_leads_back_to_the_list(ada: Browser) -> None:
    for answer in (
        await ada.get(f"/job-logs/{uuid4()}"),
        await ada.post(f"/job-logs/{uuid4()}/retry"),
        await ada.post(f"/job-logs/{uuid4()}/delete"),
        await ada.get(f"/job-logs/{uuid4()}/edit"),
        await ada.get(f"/operations/{uuid4()}"),
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/job-logs")


async def test_every_action_leaves_who_did_it(site: Site, crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    await ada.post(f"/job-logs/{job_id}/retry")
    entries = await site.audited(object_id=job_id)
    assert [(entry.action, entry.actor, entry.via) for entry in entries] == [("job.retry", "Ada", "desk")]
    assert "job retry" in (await ada.get(f"/job-logs/{job_id}?tab=audit")).text


async def test_a_job_under_way_has_a_place_for_its_result_and_its_error(crew: Crew, ada: Browser) -> None:
    job_id = await crew.enqueue("send_email", to="bob@example.com")
    text = (await ada.get(f"/job-logs/{job_id}")).text
    assert f'data-live="job-result:{job_id}"' in text
    assert "No result yet." in text
    assert f"/job-logs/{job_id}?tab=error" in text
    await crew.work()
    text = (await ada.get(f"/job-logs/{job_id}")).text
    assert "bob@example.com" in text
    assert f"/job-logs/{job_id}?tab=error" not in text


async def test_each_box_that_was_reached_says_when(ada: Browser, rows: Rows) -> None:
    waiting, went_well = await rows.add(
        rows.job(
            status="retrying",
            attempt=2,
            error="once",
            started_at=utc_now(),
            run_at=utc_now() + timedelta(seconds=50),
        ),
        rows.job(status="success", attempt=3),
    )
    for job_id, taken in ((waiting, 3), (went_well, 4)):
        path = re.findall(
            r'<li class="path-step[^"]*is-taken.*?</li>',
            (await ada.get(f"/job-logs/{job_id}")).text,
            re.DOTALL,
        )
        assert [box.count("<time") for box in path] == [1] * taken


async def test_an_entry_of_the_audit_log_leads_to_its_job(site: Site, crew: Crew, ada: Browser) -> None:
    job_id = await failed_mail(crew)
    await ada.post(f"/job-logs/{job_id}/retry")
    text = (await ada.get(f"/job-logs/{job_id}?tab=audit")).text
    assert f'<a class="mono muted" href="/job-logs/{job_id}">{job_id}</a>' in text


async def test_the_way_back_leads_to_the_list_as_it_was(crew: Crew, ada: Browser) -> None:
    job_id = await crew.enqueue("send_email", to="bob@example.com")
    base = str(ada.http.base_url).rstrip("/")
    for came_from, back in (
        (f"{base}/job-logs?q=tag%3Aimport&after=x", "/job-logs?q=tag%3Aimport&amp;after=x"),
        (f"{base}/workers", "/job-logs"),
        ("https://evil.example/job-logs?q=1", "/job-logs"),
    ):
        text = (await ada.get(f"/job-logs/{job_id}", headers={"Referer": came_from})).text
        assert f'<a href="{back}" data-back>' in text
