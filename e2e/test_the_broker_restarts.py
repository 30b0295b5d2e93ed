"""The broker dies and comes back while a browser watches: jobs go on, and the page tells the truth all along."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from e2e.stage import Stage, connected, header, make_desk, mark, not_reloaded, shows
from tests.servers.nats import NatsServer


@pytest.fixture(params=["sqlite", "postgresql"])
def own_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, own_nats_server: NatsServer
) -> Iterator[Stage]:
    """A stage whose broker this test may kill."""
    home = tmp_path_factory.mktemp("broker")
    url = f"sqlite+aiosqlite:///{home / 'desk.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").database()
    with make_desk(home, url, own_nats_server.url, "restart") as desk:
        stage = Stage(desk, request.param)
        stage.open()
        yield stage


def test_a_watching_page_sees_jobs_run_before_during_and_after(
    own_stage: Stage, own_nats_server: NatsServer, page: Page
) -> None:
    own_stage.sign_in(page)
    long = own_stage.desk.run("watch", {"seconds": 8})
    page.goto(own_stage.url(f"/job-logs/{long}"))
    connected(page)
    mark(page)
    shows(header(page, long), "running")
    own_nats_server.kill()
    during = own_stage.desk.run("greet", {"name": "during"})
    assert own_stage.desk.until(during, timeout_s=30)["result"] == "hello during"
    shows(header(page, long), "success", timeout_ms=30_000)
    own_nats_server.start()
    after = own_stage.desk.run("greet", {"name": "after"})
    assert own_stage.desk.until(after, timeout_s=30)["result"] == "hello after"
    not_reloaded(page)
