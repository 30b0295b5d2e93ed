"""The browser that was found draws text, runs scripts and opens sockets: what every other test here relies on."""

from __future__ import annotations

from playwright.sync_api import Page


def test_text_has_a_width_and_scripts_run(page: Page) -> None:
    page.set_content("<p id=words>Every job, in the open.</p>")
    box = page.locator("#words").bounding_box()
    assert box
    assert box["height"] > 10
    assert page.evaluate("typeof WebSocket") == "function"
    assert page.evaluate("CSS.supports('color', 'light-dark(red, blue)')")
