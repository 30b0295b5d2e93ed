"""Cancel stops what runs: code in the loop at once, a thread when it looks, a process by force."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from e2e.stage import Stage, connected, header, mark, not_reloaded, shows


@pytest.mark.parametrize(
    ("job", "args"),
    [("watch", {"seconds": 60}), ("slow_digest", {"text": "x", "seconds": 60}), ("crunch", {"seconds": 60})],
)
def test_one_click_cancels_it_wherever_it_runs(
    stage: Stage, page: Page, job: str, args: dict[str, object]
) -> None:
    job_id = stage.desk.run(job, args)
    stage.desk.until(job_id, "running")
    stage.sign_in(page, web=1)
    page.goto(stage.url(f"/job-logs/{job_id}", 1))
    connected(page)
    mark(page)
    header(page, job_id).get_by_role("button", name="Cancel").click()
    shows(header(page, job_id), "cancelled")
    not_reloaded(page)
    assert stage.desk.call("POST", f"/api/v1/jobs/{job_id}/cancel")[0] == 409
