"""A job that failed for its arguments is edited and run again; one that has not started is changed in place."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, header, shows


def test_edit_and_retry_makes_a_new_job_with_the_new_arguments(
    stage: Stage, page: Page, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    job_id = stage.desk.run("needs_file", {"path": str(tmp_path / "typo")})
    stage.desk.until(job_id, "failed")
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs/{job_id}"))
    page.get_by_role("link", name="Edit and retry").click()
    page.locator("[name='arg.path']").fill(str(there))
    page.locator("main form[method=post] button[type=submit]").last.click()
    page.wait_for_url(
        lambda url: (
            re.search(r"/job-logs/[0-9a-f-]{36}$", url.split("?")[0]) is not None and job_id not in url
        )
    )
    new_id = page.url.split("/job-logs/")[1][:36]
    shows(header(page, new_id), "success")
    job = stage.desk.call("GET", f"/api/v1/jobs/{new_id}")[1]
    assert (job["rerun_of"], job["args"]) == (job_id, {"path": str(there)})


def test_a_job_that_has_not_started_is_changed_in_place(stage: Stage, page: Page) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    job_id = stage.desk.run("greet", {"name": "ada"}, run_at=later)
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs/{job_id}/edit"))
    page.locator("[name='arg.name']").fill("grace")
    page.locator("main form[method=post] button[type=submit]").last.click()
    expect(page).to_have_url(re.compile(f"/job-logs/{job_id}"), timeout=SLOW_MS)
    assert stage.desk.call("GET", f"/api/v1/jobs/{job_id}")[1]["args"] == {"name": "grace"}
    header(page, job_id).get_by_role("button", name="Cancel").click()
    shows(header(page, job_id), "cancelled")


def test_run_again_starts_the_same_job_as_a_new_one(stage: Stage, page: Page) -> None:
    first = stage.desk.until(stage.desk.run("greet", {"name": "again"}))
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs/{first['job_id']}"))
    header(page, first["job_id"]).get_by_role("button", name="Run again").click()
    page.wait_for_url(lambda url: "/job-logs/" in url and first["job_id"] not in url)
    new_id = page.url.split("/job-logs/")[1][:36]
    shows(header(page, new_id), "success")
    newest = stage.desk.call("GET", f"/api/v1/jobs/{new_id}")[1]
    assert (newest["rerun_of"], newest["args"]) == (first["job_id"], {"name": "again"})


def test_wrong_arguments_keep_what_was_typed_and_name_the_field(stage: Stage, page: Page) -> None:
    imports = "/api/v1/jobs?job_name=import_csv&limit=1"
    before = stage.desk.call("GET", imports)[1]["items"]
    stage.sign_in(page)
    page.goto(stage.url("/jobs/import_csv/run"))
    page.locator("[name='arg.stop_at']").fill("7")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("[name='arg.stop_at']")).to_have_value("7")
    expect(page.locator("[name='arg.path']")).to_have_attribute("aria-invalid", "true")
    assert stage.desk.call("GET", imports)[1]["items"] == before
