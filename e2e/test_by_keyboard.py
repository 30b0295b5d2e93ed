"""An operator goes about with the keys alone, and can switch them off."""

from __future__ import annotations

import re
from uuid import uuid4

from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, connected, row

FOCUSED = "document.activeElement.id"


def test_search_walk_select_open_come_back_and_go_elsewhere(stage: Stage, page: Page) -> None:
    tag = f"keys-{uuid4().hex[:8]}"
    first, second = (stage.desk.run("greet", {"name": name}, tags=[tag]) for name in ("one", "two"))
    for job_id in (first, second):
        stage.desk.until(job_id)
    stage.sign_in(page)
    connected(page)
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.get_by_role("heading", name="Job logs", level=1)).to_be_visible()
    connected(page)
    page.keyboard.press("/")
    page.keyboard.type(f"tag:{tag}")
    page.keyboard.press("Enter")
    expect(page.locator("[data-rows] [data-row]")).to_have_count(2)
    page.keyboard.press("Escape")
    page.locator("[data-row]").first.focus()
    page.keyboard.press("j")
    assert page.evaluate(FOCUSED) == f"job-row-{first}"
    page.keyboard.press("k")
    assert page.evaluate(FOCUSED) == f"job-row-{second}"
    page.keyboard.press("x")
    expect(row(page, second).locator("[data-select]")).to_be_checked()
    page.keyboard.press("Escape")
    expect(row(page, second).locator("[data-select]")).not_to_be_checked()
    page.locator(f"#job-row-{second}").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/job-logs/{second}"))
    page.get_by_role("link", name="Arguments").click()
    expect(page.locator(f"#job-args-{second}")).to_be_visible()
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(rf"/job-logs\?.*{tag}"))
    expect(page.locator("[data-rows] [data-row]")).to_have_count(2)


def test_a_failed_row_is_retried_by_its_letter(stage: Stage, page: Page) -> None:
    job_id = stage.desk.run("needs_file", {"path": "/nowhere"})
    before = stage.desk.until(job_id)
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs?f=id:{job_id}"))
    connected(page)
    rev = row(page, job_id).get_attribute("data-rev") or ""
    row(page, job_id).focus()
    page.keyboard.press("r")
    expect(row(page, job_id)).not_to_have_attribute("data-rev", rev, timeout=SLOW_MS)
    after = stage.desk.until(job_id)
    assert after["started_at"] > before["started_at"]


def test_the_list_of_keys_opens_and_single_keys_can_be_switched_off(stage: Stage, page: Page) -> None:
    stage.sign_in(page)
    connected(page)
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).not_to_be_visible()
    page.locator("#user-menu summary").click()
    page.locator("[data-keys]").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).not_to_be_visible()
