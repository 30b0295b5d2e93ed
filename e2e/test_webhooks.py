"""A webhook in the browser: made, told of a job that ran, verified by its receiver, failed, sent again, all followed live."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from playwright.sync_api import Browser, Page, expect
from standardwebhooks import Webhook

from e2e.stage import SLOW_MS, Stage, connected, mark, not_reloaded
from e2e.test_accessibility import findings


class Receiver(ThreadingHTTPServer):
    """Keeps what came and answers `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.received: list[tuple[bytes, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.received.append((body, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(server.status)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"said")

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def make(stage: Stage, page: Page, name: str, url: str, condition: str) -> str:
    """Makes a webhook with the form; answers its secret, which the page shows this once."""
    page.goto(stage.url("/webhooks"))
    page.get_by_role("link", name="New webhook").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Events").fill("job.succeeded")
    page.get_by_label("Condition").fill(condition)
    page.get_by_label("URL").fill(url)
    page.get_by_label("At most").first.fill("0")
    expect(page.locator("#webhook-trial")).to_contain_text("127.0.0.1", timeout=SLOW_MS)
    page.get_by_role("button", name="Make it").click()
    return page.locator("#new-secret").inner_text()


def test_a_job_is_told_to_a_receiver_signed_and_its_delivery_turns_green_live(
    stage: Stage, browser: Browser
) -> None:
    page = browser.new_context().new_page()
    stage.sign_in(page, "admin")
    with receiver() as there:
        name = f"Greetings {stage.database}"
        secret = make(stage, page, name, there.url, "data.job_name == 'greet'")
        page.goto(stage.url("/webhooks"))
        page.get_by_role("link", name=name).click()
        connected(page)
        mark(page)
        expect(page.get_by_text("Nothing has been delivered yet.")).to_be_visible()
        job = stage.desk.run("greet")
        deliveries = page.locator("table", has=page.get_by_role("columnheader", name="Answer")).locator(
            "tbody tr"
        )
        expect(deliveries).to_have_count(1, timeout=SLOW_MS)
        expect(deliveries.first).to_contain_text("Success", timeout=SLOW_MS)
        expect(page.locator(".schedule-head")).to_contain_text("100 %", timeout=SLOW_MS)
        [(body, headers)] = there.received
        told = Webhook(secret).verify(body, headers)
        assert (told["type"], told["data"]["job_id"]) == ("job.succeeded", job)

        there.status = 500
        stage.desk.run("greet")
        expect(deliveries).to_have_count(2, timeout=SLOW_MS)
        expect(deliveries.first).to_contain_text("Failed", timeout=SLOW_MS)
        expect(deliveries.first).to_contain_text("500")
        there.status = 204
        deliveries.first.get_by_role("button", name="Send job.succeeded again").click()
        expect(deliveries.first).to_contain_text("Success", timeout=SLOW_MS)
        not_reloaded(page)
        first, again = there.received[1:]
        assert first[1]["webhook-id"] == again[1]["webhook-id"]
        assert first[0] == again[0]
        Webhook(secret).verify(*again)

        deliveries.first.get_by_role("link", name="job.succeeded").click()
        expect(page.get_by_role("heading", name="Attempts")).to_be_visible()
        expect(page.locator(".attempts-list > li")).to_have_count(2)
        expect(page.locator(".attempts-list")).to_contain_text("sent again by admin")
        page.get_by_role("link", name="Its page").click()
        expect(page.locator("main")).to_contain_text(name)
    page.context.close()


def test_the_pages_of_webhooks_have_no_finding(stage: Stage, browser: Browser) -> None:
    with receiver() as there:
        wish = {
            "name": f"axe {stage.database}", "event": "job.succeeded", "url": there.url, "max_retries": 0,
            "condition": "data.job_name == 'greet'", "headers": {"X-Team": "a", "Authorization": "Bearer x"},
            "payload_template": '{"job": "{{ data.job_name }}"}',
        }  # fmt: skip
        there.status = 500
        status, webhook = stage.desk.call("POST", "/api/v1/webhooks", wish)
        assert status == 201, webhook
        of = f"/webhooks/{webhook['webhook_id']}"
        status, log = stage.desk.call("POST", f"/api/v1{of}/test")
        assert status == 202, log
        planned = {"webhook_id": webhook["webhook_id"], "event": "webhook.>"}
        status, plan = stage.desk.call("POST", "/api/v1/webhook-logs/replay", planned)
        assert status == 202, plan
        pages = {
            "list": "/webhooks", "new": "/webhooks/new", "one": of, "edit": f"{of}/edit", "rotate": f"{of}/rotate",
            "delivery": f"/webhook-logs/{log['log_id']}", "deliveries": f"/webhook-logs?webhook_id={webhook['webhook_id']}",
            "none": "/webhook-logs?status=sending&event=a.b", "plan": f"/webhook-logs/replay?webhook_id={webhook['webhook_id']}",
            "replay": f"/webhook-replays/{plan['replay']['replay_id']}",
        }  # fmt: skip
        # One desk's pages in the light and narrow, the other's in the dark and wide: they do not know their database.
        scheme, width = ("light", 360) if stage.database == "sqlite" else ("dark", 1280)
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        page = context.new_page()
        stage.sign_in(page, "admin")
        for name, path in pages.items():
            page.goto(stage.url(path))
            connected(page)
            if folder := os.environ.get("M_SCREENSHOTS"):
                page.screenshot(path=f"{folder}/webhooks-{name}-{scheme}-{width}.png", full_page=True)
            assert (name, findings(page)) == (name, [])
        context.close()


def test_without_a_script_a_webhook_is_made_changed_and_tested(stage: Stage, browser: Browser) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    stage.sign_in(page, "admin")
    with receiver() as there:
        page.goto(stage.url("/webhooks/new"))
        name = f"plain {stage.database}"
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_label("Events").fill("nobody.told.>")
        page.get_by_label("URL").fill(there.url)
        page.get_by_role("button", name="Try it").click()
        expect(page.locator("#webhook-trial")).to_contain_text("127.0.0.1")
        page.get_by_role("button", name="Make it").click()
        assert re.fullmatch(r"whsec_[\w+/=]+", page.locator("#new-secret").inner_text())
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("Events").fill("nobody.told.*")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("main")).to_contain_text("nobody.told.*")
        page.get_by_role("button", name="Send a test").click()
        expect(page.get_by_role("heading", name="webhook.test")).to_be_visible()
        for _ in range(30):
            if there.received:
                break
            page.wait_for_timeout(300)
        assert json.loads(there.received[0][0])["type"] == "webhook.test"
    page.context.close()
