"""A failing job retries by itself, fails in the end, and succeeds by one click after its cause is gone."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, connected, header, mark, not_reloaded, row, shows


def test_one_click_runs_it_again_once_its_cause_is_gone(stage: Stage, page: Page, tmp_path: Path) -> None:
    wanted = tmp_path / "stock.csv"
    job_id = stage.desk.run("needs_file", {"path": str(wanted)})
    stage.desk.until(job_id, "failed")
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs/{job_id}"))
    connected(page)
    mark(page)
    shows(header(page, job_id), "failed")
    expect(page.get_by_text("is not there yet").first).to_be_visible()
    wanted.write_text("sku\n")
    header(page, job_id).get_by_role("button", name="Retry").click()
    shows(header(page, job_id), "success")
    not_reloaded(page)
    page.goto(stage.url(f"/job-logs/{job_id}?tab=attempts"))
    expect(page.get_by_text("is not there yet").first).to_be_visible(timeout=SLOW_MS)


def test_a_retry_in_the_list_answers_in_place(stage: Stage, page: Page, tmp_path: Path) -> None:
    wanted = tmp_path / "list.csv"
    job_id = stage.desk.run("needs_file", {"path": str(wanted)})
    stage.desk.until(job_id, "failed")
    stage.sign_in(page, web=1)
    page.goto(stage.url("/job-logs?status=failed", 1))
    connected(page)
    mark(page)
    wanted.write_text("sku\n")
    row(page, job_id).hover()
    row(page, job_id).get_by_role("button", name=re.compile("^Retry")).click()
    shows(row(page, job_id), "success")
    not_reloaded(page)


def test_a_job_that_fails_twice_shows_its_attempts_and_its_success(stage: Stage, page: Page) -> None:
    job = stage.desk.until(stage.desk.run("fails_twice"))
    assert (job["status"], job["attempt"], job["result"]) == ("success", 3, "worked at run 3")
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs/{job['job_id']}?tab=attempts"))
    for number in (1, 2):
        expect(page.get_by_text(f"run {number} of the supplier's service failed").first).to_be_visible()
