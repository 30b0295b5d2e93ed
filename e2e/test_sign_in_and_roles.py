"""Who signs in sees what their role may see, and buttons only for what they may do."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from e2e.stage import PASSWORD, SLOW_MS, Stage, connected, header


def test_a_page_asks_for_sign_in_and_comes_back_to_itself(stage: Stage, page: Page) -> None:
    page.goto(stage.url("/workers"))
    expect(page).to_have_url(re.compile("/sign-in"))
    page.get_by_label("Name").fill("viewer")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(stage.url("/workers"))


def test_a_wrong_password_says_so_and_keeps_the_name(stage: Stage, page: Page) -> None:
    page.goto(stage.url("/sign-in"))
    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    expect(page.get_by_label("Name")).to_have_value("nobody")


def test_a_viewer_sees_jobs_and_no_buttons(stage: Stage, page: Page) -> None:
    job = stage.desk.until(stage.desk.run("greet"))
    stage.sign_in(page, "viewer")
    page.goto(stage.url(f"/job-logs/{job['job_id']}"))
    expect(header(page, job["job_id"])).to_be_visible()
    expect(page.get_by_role("button", name="Run again")).to_have_count(0)
    page.goto(stage.url("/people"))
    expect(page.get_by_role("heading", level=1)).not_to_have_text("People")


def test_an_admin_adds_a_person_who_can_sign_in(stage: Stage, page: Page) -> None:
    name = f"grace-{stage.database}"
    stage.sign_in(page, "admin")
    page.goto(stage.url("/people"))
    form = page.locator("form[action='/people']")
    form.get_by_label("Name").fill(name)
    form.get_by_label("Password").fill("an even longer walk by the sea")
    form.get_by_label("Role").select_option("operator")
    form.locator("button[type=submit]").click()
    expect(page.get_by_text(name).first).to_be_visible(timeout=SLOW_MS)


def test_signing_out_ends_the_session_in_every_window(stage: Stage, page: Page) -> None:
    stage.sign_in(page)
    other = page.context.new_page()
    other.goto(stage.url("/job-logs"))
    connected(other)
    page.bring_to_front()
    page.goto(stage.url("/"))
    page.locator("form[action='/sign-out'] button").first.evaluate("button => button.click()")
    expect(page).to_have_url(re.compile("/sign-in"), timeout=SLOW_MS)
    expect(other).to_have_url(re.compile("/sign-in"), timeout=SLOW_MS)
