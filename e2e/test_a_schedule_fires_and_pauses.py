"""A schedule from its form to its runs: previewed while typing, fired by itself, seen in its history, paused."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, connected, mark, not_reloaded


def test_a_schedule_is_made_previewed_fires_and_is_paused(stage: Stage, page: Page) -> None:
    name = f"each second {stage.database}"
    stage.sign_in(page)
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Schedules").click()
    page.get_by_role("link", name="New schedule").first.click()
    page.get_by_role("link", name="greet", exact=True).click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("When", exact=True).fill("61 * * * *")
    preview = page.locator("#schedule-preview")
    expect(preview).to_contain_text("the minute '61' is not allowed", timeout=SLOW_MS)
    page.get_by_label("When", exact=True).fill("0 30 2 * * *")
    page.get_by_label("Time zone").select_option("Europe/Warsaw")
    expect(preview).to_contain_text("At 02:30 every day, Europe/Warsaw time", timeout=SLOW_MS)
    expect(preview.locator("tbody tr")).to_have_count(10)
    page.get_by_label("When", exact=True).fill("* * * * * *")
    expect(preview).to_contain_text("Every second", timeout=SLOW_MS)
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible(timeout=SLOW_MS)

    connected(page)
    mark(page)
    history = page.locator("[id^=schedule-history-]")
    expect(history.locator(".status.is-success").nth(2)).to_be_visible(timeout=SLOW_MS)
    not_reloaded(page)
    schedule_id = page.url.rpartition("/")[2]
    history.get_by_role("link", name="Success").first.click()
    expect(page).to_have_url(re.compile("/job-logs/"))
    page.go_back()

    page.get_by_role("link", name="Pause").click()
    page.get_by_label("Reason").fill("month-end")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".schedule-head")).to_contain_text("month-end", timeout=SLOW_MS)
    fired = fires(stage, schedule_id)
    time.sleep(3)
    assert fires(stage, schedule_id) == fired
    page.get_by_role("navigation", name="Sections").get_by_role("link", name="Schedules").click()
    expect(page.locator(f"#schedule-{schedule_id}")).to_contain_text("Paused: month-end")


def test_a_switch_in_one_browser_is_seen_in_another_and_undone(stage: Stage, page: Page) -> None:
    made = make(stage, f"switched {stage.database}")
    stage.sign_in(page)
    other = page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    stage.sign_in(other, "viewer", web=1)
    for one, web in ((page, 0), (other, 1)):
        one.goto(stage.url("/schedules", web))
        connected(one)
    mark(page)
    page.locator(f"#schedule-{made}").get_by_role("switch").click()
    expect(page.locator(f"#schedule-{made}").get_by_role("switch")).to_have_attribute(
        "aria-checked", "false", timeout=SLOW_MS
    )
    expect(other.locator(f"#schedule-{made}")).to_have_class(re.compile("is-off"), timeout=SLOW_MS)
    page.get_by_role("button", name="Undo").click()
    expect(other.locator(f"#schedule-{made}")).not_to_have_class(re.compile("is-off"), timeout=SLOW_MS)
    other.context.close()


def test_several_are_selected_and_paused_together(stage: Stage, page: Page) -> None:
    made = [make(stage, f"together {number} {stage.database}") for number in range(2)]
    stage.sign_in(page)
    page.goto(stage.url("/schedules?q=together"))
    for schedule_id in made:
        page.locator(f"#schedule-{schedule_id} [data-select]").check()
    page.locator("#bulk").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", name="Pause 2 schedules?")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#flash")).to_contain_text("Paused 2 schedules.")


def make(stage: Stage, name: str) -> str:
    wish = {"name": name, "function": "greet", "cron_expression": "0 0 1 1 *"}
    status, made = stage.desk.call("POST", "/api/v1/schedules", wish)
    assert status == 201, made
    return str(made["schedule_id"])


def fires(stage: Stage, schedule_id: str) -> int:
    """How often it fired, once nothing of it is on its way any more."""
    return len(stage.desk.call("GET", f"/api/v1/schedules/{schedule_id}/fires?limit=200")[1]["items"])
