"""The shop's jobs do what shops' jobs do, and each end is what a person would expect to read."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from e2e.stage import SLOW_MS, Stage, connected, header, shows


@pytest.fixture
def shop_window() -> Iterator[str]:
    """A small web server on loopback with one page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>open</p>")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_fifty_thousand_rows_are_imported_with_progress(stage: Stage, page: Page, tmp_path: Path) -> None:
    path = tmp_path / "stock.csv"
    path.write_text("sku,quantity\n" + "".join(f"A{n},{n % 7}\n" for n in range(50_000)))
    stage.sign_in(page)
    job_id = stage.desk.run("import_csv", {"path": str(path)})
    page.goto(stage.url(f"/job-logs/{job_id}"))
    connected(page)
    shows(header(page, job_id), "success")
    job = stage.desk.until(job_id)
    assert (job["result"], job["progress"], job["progress_note"]) == (
        {"rows": 50_000},
        1.0,
        "row 50,000 of 50,000",
    )


def test_a_page_is_fetched_over_http(stage: Stage, shop_window: str) -> None:
    job = stage.desk.until(stage.desk.run("fetch_page", {"url": shop_window}))
    assert job["result"] == {"status": 200, "bytes": 11}


def test_every_kind_of_argument_arrives_as_what_it_is(stage: Stage) -> None:
    job = stage.desk.until(
        stage.desk.run(
            "typed",
            {
                "day": "2026-11-22",
                "at": "2026-11-22T10:00:00+01:00",
                "size": "large",
                "total": "10.50",
                "tags": ["b", "a"],
                "order": [{"sku": "x", "quantity": 3, "price": "1.10"}],
                "speed": "fast",
            },
        )
    )
    assert job["status"] == "success", job["error"]
    assert job["result"]["weekday"] == "Sunday"
    assert (job["result"]["worth"], job["result"]["total"], job["result"]["tags"]) == (
        "3.30",
        "10.50",
        ["a", "b"],
    )


def test_a_crash_takes_nothing_else_down(stage: Stage) -> None:
    crash, greet = stage.desk.run("crash"), stage.desk.run("greet")
    assert stage.desk.until(greet)["status"] == "success"
    job = stage.desk.until(crash, timeout_s=60)
    assert (job["status"], job["reason"]) == ("failed", "poison")
    assert "exit code 9" in job["error"]


def test_a_large_result_is_kept_whole(stage: Stage) -> None:
    job = stage.desk.until(stage.desk.run("long_result"))
    assert len(job["result"]["text"]) == 200 * 1024


def test_a_result_that_is_not_json_fails_with_its_type(stage: Stage) -> None:
    job = stage.desk.until(stage.desk.run("not_json"))
    assert (job["status"], job["reason"]) == ("failed", "result_unstorable")
    assert "object" in job["error"]


def test_two_thousand_lines_are_kept_in_order(stage: Stage) -> None:
    job_id = stage.desk.until(stage.desk.run("chatty"))["job_id"]
    lines, cursor = [], ""
    while True:
        page = stage.desk.call("GET", f"/api/v1/jobs/{job_id}/logs?limit=500{cursor}")[1]
        lines += [line["message"] for line in page["items"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert lines == [f"line {n + 1} of 2000" for n in range(2000)]


def test_a_discarded_job_is_not_tried_again(stage: Stage) -> None:
    job = stage.desk.until(stage.desk.run("give_up"))
    assert (job["status"], job["attempt"], job["reason"]) == ("failed", 1, "discarded")


def test_a_secret_is_nowhere_to_be_read(stage: Stage, page: Page) -> None:
    secret = "tango-9471-zulu"
    job = stage.desk.until(stage.desk.run("use_key", {"key": secret}))
    assert job["status"] == "failed"
    stage.sign_in(page, "admin")
    for tab in ("error", "attempts", "args", "result", "logs", "trace", "audit", "notes"):
        page.goto(stage.url(f"/job-logs/{job['job_id']}?tab={tab}"))
        assert secret not in page.content(), tab
    page.goto(stage.url("/job-logs?q=tango-9471"))
    expect(page.locator(f"#job-row-{job['job_id']}")).to_have_count(0, timeout=SLOW_MS)
    assert secret not in str(job) + str(stage.desk.call("GET", f"/api/v1/jobs/{job['job_id']}/logs")[1])
