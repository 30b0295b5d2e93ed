"""The stage of the flows: two web and two worker processes, a real NATS, one database, people of every role."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.desk import ROOT, Desk, Process

PASSWORD = "a long walk by the sea"
ACME = ROOT / "e2e" / "acme"
SLOW_MS = 15_000
"""How long an expectation may take on a loaded machine. It decides when to give up, never whether it was fast."""


@dataclass
class Stage:
    """A running desk. `webs[0]` and `webs[1]` are separate processes over one database."""

    desk: Desk
    database: str
    webs: list[Process] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)

    def open(self) -> None:
        self.desk.upgrade()
        self.webs = [self.desk.web(), self.desk.web()]
        self.workers = [self.desk.worker("--concurrency", "8"), self.desk.worker("--concurrency", "8")]
        for role in ("viewer", "operator", "admin"):
            self.desk.m("user", "add", role, "--role", role, "--password-stdin", stdin=PASSWORD, check=True)
        assert self.desk.until(self.desk.run("greet"), timeout_s=60)["result"] == "hello world"

    def sign_in(self, page: Page, role: str = "operator", web: int = 0) -> None:
        """Signs in at one of the web processes and stands on the overview."""
        page.goto(self.url("/sign-in", web))
        page.get_by_label("Name").fill(role)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(self.url("/", web))

    def url(self, path: str, web: int = 0) -> str:
        return self.webs[web].base + path


def make_desk(home: Path, database_url: str, nats_url: str, prefix: str) -> Desk:
    """A desk whose jobs are the shop's, in a folder outside the project's packages."""
    environ = {"M_PREFIX": prefix, "PYTHONPATH": f"{ROOT}:{ACME}", "M_WEBHOOK_ALLOW": "127.0.0.1"}
    return Desk(home, jobs="shop_jobs", environ=environ, database_url=database_url, nats_url=nats_url)


def connected(page: Page) -> None:
    """Waits until the page's socket stands."""
    expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=SLOW_MS)


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f"#job-row-{job_id}")


def header(page: Page, job_id: str) -> Locator:
    return page.locator(f"#job-header-{job_id}")


def shows(place: Locator, status: str, timeout_ms: float = SLOW_MS) -> None:
    """Expects a row or header to show this status, by class and by word."""
    expect(place).to_have_class(_has(f"is-{status}"), timeout=timeout_ms)


def mark(page: Page) -> None:
    """Marks the window: a reload would lose it."""
    page.evaluate("window.unreloaded = true")


def not_reloaded(page: Page) -> None:
    assert page.evaluate("window.unreloaded === true"), "the page was loaded again"


def two_contexts(context: BrowserContext) -> tuple[Page, Page]:
    """Pages of two separate browsers: nothing but the desk connects them."""
    browser = context.browser
    assert browser is not None
    return context.new_page(), browser.new_context().new_page()


def _has(name: str) -> object:
    import re

    return re.compile(rf"(^|\s){re.escape(name)}(\s|$)")
