"""Events in the browser: one published by hand is seen live by somebody else, and starts the job that waits for it."""

from __future__ import annotations

import os
import re

from playwright.sync_api import Browser, expect

from e2e.stage import SLOW_MS, Stage, connected
from e2e.test_accessibility import findings_in_light_and_dark


def test_an_event_published_by_hand_is_followed_live_and_starts_its_job(
    stage: Stage, browser: Browser
) -> None:
    watcher, teller = browser.new_context().new_page(), browser.new_context().new_page()
    stage.sign_in(watcher, "viewer", web=1)
    watcher.goto(stage.url("/events?pattern=order.>", web=1))
    connected(watcher)
    expect(watcher.get_by_text("Nothing has happened yet that matches.")).to_be_visible()
    stage.sign_in(teller, "operator")
    teller.goto(stage.url("/events"))
    teller.get_by_role("link", name="Publish one").click()
    teller.get_by_label("Type", exact=False).first.fill("order.placed")
    teller.get_by_label("Document type").fill("Order")
    teller.get_by_label("Document id").fill("1207")
    teller.get_by_label("Data").fill('{"total": 12}')
    teller.get_by_role("button", name="Publish").click()
    expect(teller.get_by_role("heading", name="order.placed")).to_be_visible()

    expect(watcher.locator("#events")).to_contain_text("Order 1207", timeout=SLOW_MS)
    watcher.get_by_role("link", name="order.placed").click()
    expect(watcher.get_by_role("heading", name="order.placed")).to_be_visible()
    until(watcher, "pack_order")
    until(watcher, "since")
    watcher.get_by_role("link", name="pack_order").click()
    expect(watcher.locator("h1")).to_contain_text("pack_order")
    expect(watcher.locator("main")).to_contain_text(re.compile("Success"), timeout=SLOW_MS)
    for page in (watcher, teller):
        page.context.close()


def test_the_page_of_one_event_has_no_finding(stage: Stage, browser: Browser) -> None:
    told = stage.desk.m(
        "event", "publish", "order.checked", "--data", '{"lines": [{"sku": "a"}]}', check=True
    )
    event_id = told.stdout.strip()
    for width in (1280, 360):
        context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce")
        page = context.new_page()
        stage.sign_in(page, "operator")
        for name, path in (
            ("one", f"/events/{event_id}"),
            ("list", "/events"),
            ("publish", "/events/publish"),
        ):
            page.goto(stage.url(path))
            connected(page)
            if folder := os.environ.get("M_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/events-{name}-{width}.png")
            assert findings_in_light_and_dark(page) == []
        context.close()


def until(page, text: str) -> None:
    """The page of one event is not live: it is looked at again."""
    for _ in range(30):
        if page.locator("main").get_by_text(text, exact=False).count():
            return
        page.wait_for_timeout(500)
        page.reload()
    expect(page.locator("main")).to_contain_text(text)
