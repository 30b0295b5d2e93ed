"""Back from a job shows the rows that were there when it was opened, however many came since."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, connected, row

ROWS = "[data-rows] [data-row]"
NEWER = "#job-newer a"


@pytest.mark.parametrize("sort", ["", "started"])
def test_back_esc_and_the_link_show_the_same_rows_and_how_many_came_since(
    stage: Stage, page: Page, sort: str
) -> None:
    queue = f"back-{uuid4().hex[:8]}"
    old = [_ended(stage, queue) for _ in range(3)]
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs?f=queue:{queue}" + (f"&sort={sort}" if sort else "")))
    connected(page)
    shown = _shown(page)
    assert sorted(shown) == sorted(f"job-row-{job_id}" for job_id in old)
    row(page, old[1]).locator("a.row-link").click()
    page.wait_for_url(re.compile(rf"/job-logs/{old[1]}"))
    came = [_ended(stage, queue) for _ in range(2)]
    ways: list[Callable[[], object]] = [
        page.go_back,
        lambda: page.keyboard.press("Escape"),
        lambda: page.locator("a[data-back]").click(),
    ]
    for way in ways:
        way()
        page.wait_for_url(re.compile(rf"/job-logs\?.*{queue}.*cursor=from"))
        expect(page.locator(NEWER)).to_contain_text("2 ")
        assert _shown(page) == shown
        row(page, old[2]).locator("a.row-link").click()
        page.wait_for_url(re.compile(rf"/job-logs/{old[2]}"))
    page.go_back()
    page.locator(NEWER).click()
    expect(page.locator(ROWS)).to_have_count(5)
    assert {f"job-row-{job_id}" for job_id in came} == set(_shown(page)[:2])


def test_a_list_with_nothing_newer_goes_on_live_after_coming_back(stage: Stage, page: Page) -> None:
    queue = f"on-{uuid4().hex[:8]}"
    first = _ended(stage, queue)
    stage.sign_in(page)
    page.goto(stage.url(f"/job-logs?f=queue:{queue}"))
    connected(page)
    page.mouse.move(0, 0)
    second = _ended(stage, queue)
    expect(row(page, second)).to_be_visible(timeout=SLOW_MS)
    row(page, first).locator("a.row-link").click()
    page.wait_for_url(re.compile(rf"/job-logs/{first}"))
    page.go_back()
    page.wait_for_url(re.compile(rf"cursor=from%7E{second.replace('-', '')}"))
    connected(page)
    expect(page.locator(ROWS)).to_have_count(2)
    expect(page.locator("a[rel=prev]")).to_have_count(0)
    page.mouse.move(0, 0)
    third = _ended(stage, queue)
    expect(row(page, third)).to_be_visible(timeout=SLOW_MS)


def _ended(stage: Stage, queue: str) -> str:
    job_id = stage.desk.run("greet", {"name": queue}, queue=queue)
    stage.desk.until(job_id)
    return job_id


def _shown(page: Page) -> list[str]:
    found: list[str] = page.locator(ROWS).evaluate_all("rows => rows.map((row) => row.id)")
    return found
