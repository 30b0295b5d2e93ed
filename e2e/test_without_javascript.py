"""Without JavaScript a person can list, filter, page, open, run, retry, cancel, edit and save."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.stage import Stage, header, row, shows


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_run_open_and_edit_a_job(stage: Stage, plain: Page) -> None:
    stage.sign_in(plain)
    plain.goto(stage.url("/jobs/greet/run"))
    plain.locator("[name='arg.name']").fill("plain")
    plain.get_by_role("button", name="Run", exact=True).click()
    plain.wait_for_url(re.compile(r"/job-logs/[0-9a-f-]{36}"))
    job_id = plain.url.split("/job-logs/")[1][:36]
    stage.desk.until(job_id, "success")
    plain.goto(stage.url(f"/job-logs/{job_id}?tab=result"))
    expect(plain.get_by_role("group", name="Result")).to_contain_text("hello plain")


def test_filter_and_page_the_list(stage: Stage, plain: Page) -> None:
    for number in range(3):
        stage.desk.until(stage.desk.run("greet", {"name": f"n{number}"}))
    stage.sign_in(plain)
    plain.goto(stage.url("/job-logs"))
    plain.locator("input[name=q]").first.fill("job:greet args.name:n1")
    plain.locator("input[name=q]").first.press("Enter")
    expect(plain.get_by_text("n1").first).to_be_visible()
    assert plain.locator("tr[data-row]").count() >= 1
    expect(plain.locator("tr[data-row]", has_text="n2")).to_have_count(0)


def test_retry_and_cancel_by_plain_forms(stage: Stage, plain: Page, tmp_path: Path) -> None:
    wanted = tmp_path / "plain.csv"
    failed = stage.desk.run("needs_file", {"path": str(wanted)})
    stage.desk.until(failed, "failed")
    wanted.write_text("x")
    stage.sign_in(plain)
    plain.goto(stage.url("/job-logs?status=failed"))
    row(plain, failed).get_by_role("button", name=re.compile("^Retry")).click()
    stage.desk.until(failed, "success")
    running = stage.desk.run("watch", {"seconds": 60})
    stage.desk.until(running, "running")
    plain.goto(stage.url(f"/job-logs/{running}"))
    header(plain, running).get_by_role("button", name="Cancel").click()
    stage.desk.until(running, "cancelled")
    plain.goto(stage.url(f"/job-logs/{running}"))
    shows(header(plain, running), "cancelled")
