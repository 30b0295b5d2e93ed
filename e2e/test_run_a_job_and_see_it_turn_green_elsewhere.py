"""A job run in one browser turns green in another that sits on the other web process, without a reload."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Page, expect

from e2e.stage import SLOW_MS, Stage, connected, header, mark, not_reloaded, row, shows, two_contexts


def run_from_the_form(page: Page, stage: Stage, job: str, web: int = 0, **values: str) -> str:
    """Runs a job from the form made of its signature; answers its id."""
    page.goto(stage.url(f"/jobs/{job}/run", web))
    for name, value in values.items():
        page.locator(f"[name='arg.{name}']").fill(value)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url(re.compile(r"/job-logs/[0-9a-f-]{36}"))
    return page.url.split("/job-logs/")[1][:36]


def test_the_second_browser_sees_every_step(stage: Stage, context: BrowserContext) -> None:
    runner, watcher = two_contexts(context)
    stage.sign_in(runner, web=0)
    stage.sign_in(watcher, web=1)
    watcher.goto(stage.url("/job-logs?job=watch", 1))
    connected(watcher)
    job_id = run_from_the_form(runner, stage, "watch", seconds="8")
    watcher.goto(stage.url("/job-logs?job=watch", 1))
    connected(watcher)
    mark(watcher)
    shows(row(watcher, job_id), "running")
    expect(row(watcher, job_id)).to_contain_text("step", timeout=SLOW_MS)
    shows(row(watcher, job_id), "success")
    shows(header(runner, job_id), "success")
    not_reloaded(watcher)


def test_a_new_job_appears_in_a_list_that_stands_at_its_top(stage: Stage, context: BrowserContext) -> None:
    watcher, _ = two_contexts(context)
    stage.sign_in(watcher, web=1)
    watcher.goto(stage.url("/job-logs", 1))
    connected(watcher)
    mark(watcher)
    watcher.mouse.move(5, 5)
    job_id = stage.desk.run("greet", {"name": "live"})
    shows(row(watcher, job_id), "success")
    not_reloaded(watcher)


def test_a_job_that_ended_before_its_pages_socket_opened_still_shows_its_end(
    stage: Stage, context: BrowserContext
) -> None:
    page, _ = two_contexts(context)
    stage.sign_in(page)
    job_id = stage.desk.run("watch", {"seconds": 1})
    stage.desk.until(job_id, "running", "success")
    page.route("**/static/js/*", lambda route: (stage.desk.until(job_id), route.continue_())[1])
    page.goto(stage.url(f"/job-logs/{job_id}"))
    shows(header(page, job_id), "success")


def test_log_lines_arrive_while_the_job_runs(stage: Stage, context: BrowserContext) -> None:
    page, _ = two_contexts(context)
    stage.sign_in(page, web=1)
    job_id = stage.desk.run("chatty", {"lines": 2000})
    page.goto(stage.url(f"/job-logs/{job_id}?tab=logs", 1))
    expect(page.get_by_text("line 2000 of 2000")).to_be_visible(timeout=SLOW_MS)
