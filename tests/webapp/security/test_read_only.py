"""M_READ_ONLY: everything is shown, and nothing changes, whoever asks and by whichever way (case 50)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from tests.webapp.rows import Rows
from tests.webapp.security.routes import OPERATOR, ROUTES
from tests.webapp.security.test_every_route import routes_of
from tests.webapp.site import PASSWORD, Browser, Site, running_site
from tests.webapp.webhooks import a_delivery, a_webhook
from webapp.queries.job_logs import load_jobs
from webapp.security import ENTRANCES, READS
from worker.accounts.models import OneTimeToken, Session
from worker.db.base import Base

SETTING = "M_READ_ONLY"
MARKS = {"last_seen_at", "last_used_at"}
"""When somebody was last here: looking writes it."""


@pytest.fixture
async def site(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(sqlite_url, tmp_path, read_only=True) as site:
        yield site


async def test_no_route_that_changes_something_does_so_by_session_or_by_token(
    database_url: str, tmp_path: Path
) -> None:
    async with running_site(database_url, tmp_path, read_only=True) as site:
        await _walk(site)


async def _walk(site: Site) -> None:
    rows = Rows(site.database)
    job_ids = await rows.add(rows.job("greet", "failed"), rows.job("greet", "queued"))
    await rows.offer("greet")
    browser, token = await site.signed_in(), await site.token("admin")
    form = await browser.form_token()
    before, wrong, asked = await _rows(site), [], 0
    for method, path in routes_of(site.app):
        if method in READS or path in ENTRANCES:
            continue
        for job_id in job_ids:
            answer = await _ask(browser, token, form, method, path, job_id)
            asked += 1
            if answer.status_code != 403 or SETTING not in answer.text:
                wrong.append(f"{method} {path}: {answer.status_code}")
    assert wrong == []
    assert asked > 100
    assert await _rows(site) == before


async def test_what_is_at_no_address_or_brings_nobody_is_refused_alike(site: Site) -> None:
    stranger = site.browser().http
    for path in ("/nothing", "/sign-in/", "/sign-out/", "/api/v1/nothing", "/set-up"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "MADE-UP"):
            answer = await stranger.request(method, path)
            assert answer.status_code == 403, (method, path)


async def test_the_refusal_has_the_form_that_its_reader_reads(site: Site) -> None:
    browser, token = await site.signed_in(), await site.token("admin")
    page = await browser.post("/overview/probe")
    assert page.text.startswith("<!doctype html>")
    assert f"read-only ({SETTING} is on)" in page.text
    fragment = await browser.post("/overview/probe", headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["hx-retarget"]) == (403, "#flash")
    assert SETTING in fragment.text
    assert "<!doctype" not in fragment.text
    problem = await site.browser().http.post(
        "/api/v1/jobs", json={"job": "greet"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["status"] == 403
    assert SETTING in problem.json()["detail"]


async def test_people_come_in_and_leave_and_programs_open_the_stream(site: Site) -> None:
    await site.person("vera", "viewer")
    browser, token = site.browser(), await site.token("viewer")
    assert (await browser.sign_in("vera")).status_code == 303
    assert (await browser.get("/job-logs")).status_code == 200
    assert (await browser.post("/sign-out")).status_code == 303
    async with site.database.read() as connection:
        assert await connection.scalar(sa.select(Session.ended_at)) is not None
    ticket = await site.browser().http.post(
        "/api/v1/stream/ticket", headers={"Authorization": f"Bearer {token}"}
    )
    assert ticket.status_code == 201
    async with site.database.read() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(OneTimeToken)) == 1


async def test_an_admin_sees_every_page_without_a_way_to_act(site: Site) -> None:
    rows = Rows(site.database)
    job_id, _ = await rows.add(rows.job("greet", "failed"), rows.job("greet", "running"))
    await rows.offer("greet")
    await rows.worker()
    await site.person("vera", "viewer")
    await site.token("viewer")
    webhook_id = await a_webhook(site.database)
    log_id = await a_delivery(site.database, webhook_id)
    browser = await site.signed_in()
    for path in (
        "/", "/job-logs", f"/job-logs/{job_id}", f"/job-logs/{job_id}?tab=notes", "/dead-letters",
        f"/dead-letters/{'f' * 32}", "/jobs", "/jobs/greet", "/schedules", "/webhooks", f"/webhooks/{webhook_id}",
        "/webhook-logs", f"/webhook-logs/{log_id}", "/events", "/workers", "/people", "/tokens", "/audit", "/settings", "/account",
    ):  # fmt: skip
        page = await browser.get(path)
        assert page.status_code == 200, path
        assert '<span class="read-only"' in page.text, path
        forms = [part.partition(">")[0] for part in page.text.split("<form")[1:]]
        assert [form for form in forms if 'method="post"' in form] == [' method="post" action="/sign-out"'], (
            path
        )
        assert "formaction" not in page.text, path
        assert not any(
            f'href="{form}' in page.text for form in ("/schedules/new", "/webhooks/new", "/events/publish")
        ), path
    settings = await browser.get("/settings")
    assert SETTING in settings.text


async def test_forms_to_act_are_refused_with_the_same_words(site: Site) -> None:
    browser, before = await site.signed_in(), len(await site.audited())
    for route, needed in ROUTES.items():
        method, _, path = route.partition(" ")
        if method == "GET" and needed == OPERATOR:
            answer = await browser.get(_filled(path, str(uuid4())))
            assert answer.status_code == 403, path
            assert SETTING in answer.text, path
    assert len(await site.audited()) == before


async def test_a_row_that_comes_in_live_offers_nothing_either(site: Site) -> None:
    rows = Rows(site.database)
    (job_id,) = await rows.add(rows.job("greet", "failed"))
    async with site.database.read() as connection:
        job = (await load_jobs(connection, [job_id]))[job_id]
    row = site.app.state.live.render("job_logs/_row.html", {"job": job, "can_act": True, "can_admin": True})
    assert f"job-row-{job_id}" in row
    assert "<button" not in row


async def test_without_the_setting_nothing_says_so_and_everything_goes(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with running_site(sqlite_url, tmp_path) as site:
        browser = await site.signed_in()
        page = await browser.get("/people")
        assert "read-only" not in page.text
        answer = await browser.post("/people", {"name": "olga", "role": "viewer", "password": PASSWORD})
        assert answer.status_code == 303


async def _ask(
    browser: Browser, token: str, form: str, method: str, path: str, job_id: object
) -> httpx.Response:
    path = _filled(path, str(job_id))
    if path.startswith("/api/"):
        stranger = browser.site.browser().http
        body: Any = {"json": {"job": "greet"}} if method in ("POST", "PATCH") else {}
        return await stranger.request(method, path, headers={"Authorization": f"Bearer {token}"}, **body)
    return await browser.http.request(method, path, data={"_csrf": form, "theme": "dark", "note": "x"})


def _filled(path: str, job_id: str) -> str:
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        value = job_id if name.endswith("_id") else "greet" if name == "name" else "f" * 32
        path = path.replace("{" + name + "}", value)
    return path


async def _rows(site: Site) -> dict[str, list[Any]]:
    """Every row of every table, without the marks that looking leaves."""
    found = {}
    async with site.database.read() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.c if column.name not in MARKS]
            found[table.name] = sorted(map(repr, await connection.execute(sa.select(*columns))))
    return found
