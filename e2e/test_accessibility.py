"""axe finds nothing on any page, in light and dark, wide and at 360 px; no page scrolls sideways or breaks its policy."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from e2e.stage import Stage, connected

PAGES = (
    "/", "/job-logs", "/job-logs?q=status:nope", "/jobs", "/jobs/typed", "/jobs/typed/run", "/jobs/typed/limit",
    "/queues/default/limit", "/dead-letters", "/workers",
    "/schedules", "/schedules/new", "/schedules/new?function=typed", "/schedules/calendar", "/schedules/calendar?span=7d",
    "/events", "/events?pattern=Nope", "/events/publish",
    "/people", "/tokens", "/audit", "/settings", "/account", "/nothing-here",
)  # fmt: skip
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
TABS = ("error", "attempts", "args", "result", "logs", "trace", "audit", "notes")


def findings(page: Page) -> list[str]:
    """axe's violations, and sideways scrolling, in words."""
    found = Axe().run(page).response["violations"]
    words = [f"{v['id']}: {n['html'][:140]}" for v in found for n in v["nodes"]]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        words.append("the page scrolls sideways")
    return words


def findings_in_light_and_dark(page: Page) -> list[str]:
    """`findings` of one page as it is loaded, in both schemes."""
    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {words}" for words in findings(page)]
    return found


@pytest.mark.parametrize("width", [1280, 360])
def test_no_page_has_a_finding(stage: Stage, browser: Browser, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    outside: list[str] = []
    page.on(
        "request",
        lambda r: outside.append(r.url) if not r.url.startswith((stage.url("/"), "ws:", "data:")) else None,
    )
    page.goto(stage.url("/sign-in"))
    problems = {"/sign-in": findings_in_light_and_dark(page)}
    stage.sign_in(page, "admin")
    failed = stage.desk.until(stage.desk.run("use_key", {"key": "s3cret"}), timeout_s=90)["job_id"]
    status, schedule = stage.desk.call(
        "POST",
        "/api/v1/schedules",
        {"name": f"axe {width}", "function": "greet", "cron_expression": "*/5 * * * *"},
    )
    assert status == 201, schedule
    of = f"/schedules/{schedule['schedule_id']}"
    stage.desk.call("POST", f"/api/v1{of}/run")
    stage.desk.call("POST", f"/api/v1{of}/pause", {"reason": "month-end"})
    ours = (
        "/schedules",
        of,
        f"{of}/edit",
        f"{of}/backfill",
        f"/schedules/pause?id={schedule['schedule_id']}",
    )
    for path in (*PAGES, *ours, *(f"/job-logs/{failed}?tab={tab}" for tab in TABS)):
        page.goto(stage.url(path))
        if path != "/nothing-here":
            connected(page)
        problems[path] = findings_in_light_and_dark(page)
    context.close()
    assert {path: found for path, found in problems.items() if found} == {}
    assert [text for text in said if "Failed to load resource" not in text] == []
    assert outside == []
