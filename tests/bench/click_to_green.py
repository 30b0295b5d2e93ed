"""How long from a click on Retry in one browser to the green row in another, on the other web process.

    python -m tests.bench.click_to_green [clicks] [sqlite|postgresql]

Two web and one worker process, a real NATS, an idle system; prints p50, p95 and the slowest, in milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from e2e.stage import Stage, connected, make_desk
from tests.servers import chromium
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer

ROWS = 40
WATCH = """
ids => { window.green = {}; new MutationObserver(() => { const now = Date.now();
  for (const id of ids) { const row = document.getElementById('job-row-' + id);
    if (row && row.classList.contains('is-success') && !(id in window.green)) {
      window.green[id] = now; window.seen?.(id); } } })
  .observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['class']}); }
"""
CLICK = """
id => { const row = document.getElementById('job-row-' + id); const at = Date.now();
  row.querySelector("button[formaction$='/retry']").click(); return at; }
"""

GREEN = """
id => new Promise(seen => { if (id in window.green) seen(window.green[id]); else
  window.seen = one => { if (one === id) seen(window.green[id]); }; })
"""
"""Waits without polling, which would take the page's time."""


def main(clicks: int, database: str) -> None:
    with tempfile.TemporaryDirectory(prefix="m-click-") as folder:
        nats, postgres = NatsServer(), PostgresServer()
        nats.start()
        url = f"sqlite+aiosqlite:///{folder}/desk.db"
        if database == "postgresql":
            postgres.start()
            url = postgres.database()
        try:
            with make_desk(Path(folder), url, nats.url, "click") as desk, sync_playwright() as playwright:
                stage = Stage(desk, database)
                stage.open()
                browser = playwright.chromium.launch(**chromium.find().launch_options())
                pages = browser.new_context().new_page(), browser.new_context().new_page()
                for web, page in enumerate(pages):
                    stage.sign_in(page, web=web)
                report(measure(stage, pages, clicks, Path(folder)))
                browser.close()
        finally:
            nats.close()
            if database == "postgresql":
                postgres.close()


def measure(stage: Stage, pages: tuple[Page, Page], clicks: int, folder: Path) -> list[float]:
    """Lags in milliseconds, one click after the other."""
    lags: list[float] = []
    while len(lags) < clicks:
        wanted = folder / f"there-{len(lags)}"
        ids = [stage.desk.run("needs_file", {"path": str(wanted)}) for _ in range(ROWS)]
        for job_id in ids:
            stage.desk.until(job_id, "failed")
        wanted.touch()
        for web, page in enumerate(pages):
            page.goto(stage.url("/job-logs?job=needs_file", web))
            connected(page)
        pages[1].evaluate(WATCH, ids)
        time.sleep(1)
        for job_id in ids:
            clicked = pages[0].evaluate(CLICK, job_id)
            lags.append(pages[1].evaluate(GREEN, job_id) - clicked)
            time.sleep(0.5)  # the system is idle again
    return lags[:clicks]


def report(lags: list[float]) -> None:
    cuts = statistics.quantiles(lags, n=20)
    print(
        f"{len(lags)} clicks: p50 {statistics.median(lags):.0f} ms, p95 {cuts[18]:.0f} ms, max {max(lags):.0f} ms"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, sys.argv[2] if len(sys.argv) > 2 else "sqlite")
