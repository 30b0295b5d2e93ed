"""What a page does with its socket: keeps what a person is doing, drops what is old, tells the truth about itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, WebSocketRoute, expect

from e2e.stage import SLOW_MS, Stage, connected, header, mark, not_reloaded, row, shows

NETWORK = ("Failed to load resource", "WebSocket", "htmx:ws:error")
"""What browsers say of a server that is away."""


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not complain: no error in its console, no breach of its policy."""
    page = context.new_page()
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(word in message.text for word in NETWORK):
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert complaints == []


def one_row(stage: Stage, page: Page, job: str, args: dict[str, object]) -> str:
    """Starts a job and opens a list that shows it."""
    job_id = stage.desk.run(job, args)
    page.goto(stage.url(f"/job-logs?f=id:{job_id}", 1))
    connected(page)
    return job_id


def test_selection_focus_and_place_survive_a_change(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = one_row(stage, page, "watch", {"seconds": 2})
    mark(page)
    box = row(page, job_id).locator("[data-select]")
    box.check()
    link = row(page, job_id).locator(".row-link")
    link.focus()
    page.evaluate("window.theRow = document.activeElement.closest('tr')")
    shows(row(page, job_id), "success")
    expect(box).to_be_checked()
    expect(link).to_be_focused()
    assert page.evaluate("window.theRow === document.activeElement.closest('tr')"), "the row was replaced"
    not_reloaded(page)


def test_what_is_folded_open_stays_open(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = stage.desk.run("watch", {"seconds": 2})
    page.goto(stage.url(f"/job-logs/{job_id}?tab=attempts", 1))
    connected(page)
    page.locator("#user-menu").evaluate("menu => { menu.open = true; }")
    shows(header(page, job_id), "success")
    expect(page.locator("#user-menu")).to_have_attribute("open", "")


def test_an_older_revision_is_dropped_and_a_newer_one_is_not(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = one_row(stage, page, "greet", {"name": "old"})
    shows(row(page, job_id), "success")
    rev = int(row(page, job_id).get_attribute("data-rev") or "0")
    swap = """async ([id, rev, words]) => {
        const live = `job-row:${id}`;
        const text = `<hx-partial hx-target="[data-live='${live}']" hx-swap="outerMorph"><tr id="job-row-${id}" `
          + `data-live="${live}" data-rev="${rev}"><td>${words}</td></tr></hx-partial>`;
        await htmx.swap({ sourceElement: document.body, target: document.body, swap: "none", text });
    }"""
    page.evaluate(swap, [job_id, rev - 1, "from the past"])
    expect(row(page, job_id)).not_to_contain_text("from the past")
    page.evaluate(swap, [job_id, rev + 1, "from the future"])
    expect(row(page, job_id)).to_contain_text("from the future")


def test_new_rows_are_offered_while_somebody_points_at_the_list(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    stage.desk.until(stage.desk.run("greet", {"name": "first"}))
    page.goto(stage.url("/job-logs", 1))
    connected(page)
    first = page.locator("#job-rows tr").first
    first.hover()
    before, place = page.locator("#job-rows tr").count(), first.bounding_box()
    job_id = stage.desk.run("greet", {"name": "second"})
    hint = page.locator("#job-newer a")
    expect(hint).to_have_text("1 new, show", timeout=SLOW_MS)
    assert page.locator("#job-rows tr").count() == before
    assert first.bounding_box() == place
    hint.focus()
    page.keyboard.press("Enter")
    shows(row(page, job_id), "success")


def test_a_row_that_no_longer_matches_stays_and_is_marked(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = stage.desk.run("watch", {"seconds": 8})
    stage.desk.until(job_id, "running")
    page.goto(stage.url(f"/job-logs?status=running&f=id:{job_id}", 1))
    connected(page)
    shows(row(page, job_id), "success")
    expect(row(page, job_id)).to_have_attribute("data-ui-left", "")


def test_a_page_that_was_in_the_background_catches_up(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = stage.desk.run("watch", {"seconds": 2})
    page.goto(stage.url(f"/job-logs/{job_id}", 1))
    connected(page)
    mark(page)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    stage.desk.until(job_id)
    page.wait_for_timeout(300)
    expect(header(page, job_id)).not_to_have_class("is-success")
    page.evaluate(hide, False)
    shows(header(page, job_id), "success")
    connected(page)
    not_reloaded(page)


def test_a_web_process_that_restarts_is_found_again(stage: Stage, page: Page) -> None:
    own = stage.desk.web()
    stage.webs.append(own)
    at = len(stage.webs) - 1
    try:
        stage.sign_in(page, web=at)
        job_id = stage.desk.run("watch", {"seconds": 3})
        page.goto(stage.url(f"/job-logs/{job_id}", at))
        connected(page)
        mark(page)
        own.kill()
        expect(page.locator("#connection")).to_have_attribute("data-state", "waiting", timeout=SLOW_MS)
        stage.desk.until(job_id)
        own = stage.webs[at] = stage.desk.web(port=own.port)
        connected(page)
        shows(header(page, job_id), "success")
        not_reloaded(page)
    finally:
        own.stop()
        stage.webs.pop(at)


def test_signing_out_elsewhere_takes_every_open_page_to_the_sign_in(
    stage: Stage, context: BrowserContext
) -> None:
    page, other = context.new_page(), context.new_page()
    stage.sign_in(page, web=1)
    page.goto(stage.url("/job-logs", 1))
    connected(page)
    other.goto(stage.url("/", 1))
    other.locator("#user-menu summary").click()
    other.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in?next=%2Fjob-logs", timeout=SLOW_MS)


@pytest.mark.parametrize("script", ["vendor/hx-ws", "js/live"])
def test_a_script_that_comes_late_costs_no_updates(stage: Stage, page: Page, script: str) -> None:
    stage.sign_in(page, web=1)
    job_id = stage.desk.run("watch", {"seconds": 2})

    def late(route: object) -> None:
        page.wait_for_timeout(500)
        route.continue_()  # type: ignore[attr-defined]

    page.route(f"**/static/*/{script}*", late)
    page.goto(stage.url(f"/job-logs/{job_id}", 1))
    connected(page)
    shows(header(page, job_id), "success")


def test_the_page_connects_again_after_the_desk_failed_to_serve_its_socket(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    failed: list[str] = []

    def meet(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        if not failed:
            failed.append(socket.url)
            socket.close(code=4500)

    page.route_web_socket("**/live", meet)
    page.goto(stage.url("/job-logs", 1))
    connected(page)
    assert len(failed) == 1


def test_the_counters_in_the_navigation_follow(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    connected(page)
    job_id = stage.desk.run("watch", {"seconds": 4})
    expect(page.locator("[data-count=running]")).not_to_have_text("", timeout=SLOW_MS)
    stage.desk.until(job_id)


def later(stage: Stage, job: str, args: dict[str, object]) -> str:
    """A job that has not begun."""
    return stage.desk.run(job, args, run_at="2100-01-01T00:00:00Z")


def begin(stage: Stage, job_id: str) -> None:
    assert stage.desk.call("PATCH", f"/api/v1/jobs/{job_id}", {"run_at": "2020-01-01T00:00:00Z"})[0] == 200


def test_the_error_of_a_job_appears_where_its_place_was_empty(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = later(stage, "needs_file", {"path": "/nowhere"})
    page.goto(stage.url(f"/job-logs/{job_id}?tab=error", 1))
    connected(page)
    mark(page)
    expect(page.locator(f"#job-error-{job_id}")).to_contain_text("No error")
    begin(stage, job_id)
    shows(header(page, job_id), "failed")
    expect(page.locator(f"#job-error-{job_id}")).to_contain_text("/nowhere")
    not_reloaded(page)


def test_the_lines_of_a_job_that_had_not_begun_arrive(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    job_id = later(stage, "chatty", {"lines": 300})
    page.goto(stage.url(f"/job-logs/{job_id}?tab=logs", 1))
    connected(page)
    mark(page)
    begin(stage, job_id)
    expect(page.get_by_text("line 300 of 300")).to_be_attached(timeout=SLOW_MS)
    not_reloaded(page)


def test_the_feed_can_be_held_and_let_go(stage: Stage, page: Page) -> None:
    stage.sign_in(page, web=1)
    connected(page)
    feed, button = page.locator("#feed"), page.locator("[data-hold=feed]")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    job_id = stage.desk.run("greet", {"name": "held"})
    stage.desk.until(job_id)
    expect(page.locator("[data-count=failed]")).to_be_attached()
    page.wait_for_timeout(1500)  # long enough for a tick to have brought it
    expect(feed.locator(f'a[href="/job-logs/{job_id}"]')).to_have_count(0)
    button.click()
    expect(feed.locator(f'a[href="/job-logs/{job_id}"]').first).to_be_visible(timeout=SLOW_MS)
    expect(button).to_have_text("Pause")
