"""What every answer says of itself, and what errors keep to themselves (cases 16, 26, 30, 34, 35, 65 to 68)."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import structlog
from litestar import get
from sqlalchemy.exc import DBAPIError, OperationalError
from structlog.testing import capture_logs

from tests.webapp.site import Site, running_site
from webapp import app as webapp_app
from webapp.security import printable
from worker.db.session import Database

POLICY = (
    "default-src 'self'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "object-src 'none'",
    "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'",
)  # fmt: skip


@get("/breaks", opt={"public": True})
async def breaks() -> str:
    raise RuntimeError("SELECT secret FROM users; /etc/passwd")


@get("/api/v1/breaks", opt={"public": True})
async def api_breaks() -> str:
    raise RuntimeError("SELECT secret FROM users; /etc/passwd")


@pytest.fixture
async def broken_site(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    """With two routes that fail in an unforeseen way."""
    monkeypatch.setattr(webapp_app, "PAGES", [*webapp_app.PAGES, breaks, api_breaks])
    async with running_site(sqlite_url, tmp_path) as site:
        yield site


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/account", 200),
        ("GET", "/people", 200),
        ("GET", "/nothing-here", 404),
        ("GET", "/people/nothing/here", 404),
        ("DELETE", "/people", 405),
        ("TRACE", "/people", 405),
        ("GET", "/audit?before=x", 422),
        ("GET", "/breaks", 500),
        ("GET", "/api/v1/breaks", 500),
        ("GET", "/api/v1/jobs", 401),
        ("GET", "/set-up", 410),
        ("GET", "/static/x/nothing.css", 404),
        ("GET", "/healthz", 200),
        ("GET", "/schema", 200),
        ("GET", "/schema/nothing", 404),
    ],
)
async def test_every_answer_carries_the_strict_policy(
    broken_site: Site, method: str, path: str, status: int
) -> None:
    browser = await broken_site.signed_in()
    answer = await browser.http.request(method, path)
    assert answer.status_code == status
    _is_strict(answer)
    assert answer.headers["cache-control"] == "no-store"


async def test_redirects_and_what_the_gate_refuses_carry_it_too(site: Site) -> None:  # case 26
    browser = site.browser()
    for answer in (
        await browser.get("/people"),
        await browser.get("/people", headers={"Host": "evil.example"}),
        await browser.get("/people", headers={f"x-{n}": "y" for n in range(200)}),
        await browser.http.post("/sign-in", content=b"{}", headers={"Content-Type": "text/plain"}),
    ):
        _is_strict(answer)


async def test_https_is_kept_and_named_in_the_socket_source(https_site: Site) -> None:
    answer = await https_site.browser().get("/sign-in")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "connect-src 'self' wss://desk.example.com" in answer.headers["content-security-policy"]


async def test_plain_http_promises_no_https(site: Site) -> None:
    answer = await site.browser().get("/sign-in")
    assert "strict-transport-security" not in answer.headers
    assert "connect-src 'self' ws://127.0.0.1:8000" in answer.headers["content-security-policy"]


async def test_static_files_are_kept_for_ever_under_the_name_of_their_content(site: Site) -> None:
    url = site.app.state.static.url("css/base.css")
    answer = await site.browser().get(url)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["x-content-type-options"] == "nosniff"
    older = await site.browser().get(url.replace(site.app.state.static.version, "0" * 12))
    assert (older.status_code, older.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["../webapp/app.py", "..%2f..%2fetc%2fpasswd", "%2e%2e/m", "css/../../m", "/etc/passwd", "css"]
)
async def test_static_files_are_those_and_no_others(site: Site, path: str) -> None:  # case 44
    answer = await site.browser().get(f"/static/{site.app.state.static.version}/{path}")
    assert answer.status_code == 404
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["/breaks?debug=1", "/api/v1/breaks?debug=1"])
@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}], ids=["page", "htmx"])
async def test_an_unforeseen_error_tells_its_id_and_nothing_of_the_inside(  # case 67
    broken_site: Site, path: str, headers: dict[str, str]
) -> None:
    with capture_logs() as logs:
        answer = await broken_site.browser().get(path, headers=headers)
    assert answer.status_code == 500
    for inside in ("SELECT", "passwd", "RuntimeError", "Traceback", ".py", "litestar", "site-packages"):
        assert inside not in answer.text
    (logged,) = [entry for entry in logs if entry["event"] == "request failed"]
    assert logged["error_id"] in answer.text
    assert isinstance(logged["exc_info"], RuntimeError)


async def test_an_htmx_error_lands_in_the_flash_region_whatever_was_to_be_swapped(site: Site) -> None:
    browser = await site.signed_in()
    answer = await browser.get("/audit?before=x", headers={"HX-Request": "true"})
    assert answer.status_code == 422
    assert (answer.headers["hx-retarget"], answer.headers["hx-reswap"]) == ("#flash", "innerHTML")
    assert answer.text.lstrip().startswith('<div class="flashes"')


async def test_an_api_error_is_a_problem_document(site: Site) -> None:
    token = await site.token("viewer")
    answer = await site.browser().get(
        "/api/v1/jobs?limit=1000000", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (422, "Unprocessable Entity")
    assert problem["errors"][0]["field"] == "limit"


async def test_a_database_that_is_away_is_503_and_says_to_try_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    browser = await site.signed_in()

    def away(*_: object) -> Any:
        raise OperationalError("SELECT 1", {}, OSError("connection refused by db.internal:5432"))

    monkeypatch.setattr(site.database, "read", away)
    site.app.state.authenticator.hear("resync", {})
    for path in ("/people", "/api/v1/jobs"):
        answer = await browser.get(path, headers={"Authorization": "Bearer mdesk_abcdefghij_" + "x" * 43})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "db.internal" not in answer.text


async def test_a_database_that_takes_no_writes_says_so(
    site: Site, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, database = await site.signed_in(), Database(database_url)
    quiet = "PRAGMA query_only = 1" if "sqlite" in database_url else "SET TRANSACTION READ ONLY"
    with pytest.raises(DBAPIError) as refused:
        await _write(database, quiet, "CREATE TABLE shelf (book int)")
    await database.close()
    monkeypatch.setattr(site.database, "read", _raiser(refused.value))
    site.app.state.authenticator.hear("resync", {})
    answer = await browser.get("/people")
    assert answer.status_code == 503
    assert "it is read-only. Nothing was changed." in answer.text


async def test_a_locked_database_says_so(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'locked.db'}", lock_timeout_s=0.1)
        with pytest.raises(OperationalError) as refused:
            await _write(database, "SELECT 1")
        await database.close()
    browser = await site.signed_in()
    monkeypatch.setattr(site.database, "read", _raiser(refused.value))
    site.app.state.authenticator.hear("resync", {})
    answer = await browser.get("/people")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "locked by another program" in answer.text


async def _write(database: Database, *statements: str) -> None:
    async with database.transaction() as session:
        for statement in statements:
            await session.execute(sa.text(statement))


def _raiser(error: Exception) -> Any:
    def read(*_: object) -> Any:
        raise error

    return read


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "a b", "x/y", "[::1", "127.0.0.1:x"],
)
async def test_a_name_that_is_not_ours_is_400(site: Site, host: str) -> None:  # case 66
    answer = await site.browser().get("/sign-in", headers={"Host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9999", "[::1]:8000", "192.168.1.7", "desk"])
async def test_names_that_no_other_site_can_have_are_ours(site: Site, host: str) -> None:
    assert (await site.browser().get("/sign-in", headers={"Host": host})).status_code == 200


async def test_with_a_public_address_other_names_are_strangers(https_site: Site) -> None:
    browser = https_site.browser()
    for host, status in (("desk.example.com", 200), ("127.0.0.1", 200), ("desk", 400), ("example.com", 400)):
        assert (await browser.get("/sign-in", headers={"Host": host})).status_code == status


FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=203.0.113.7;host=evil.example;proto=https",
}


async def test_forwarded_headers_of_a_stranger_change_nothing(site: Site) -> None:  # case 66
    await site.person("Ada", "admin")
    browser = site.browser(client=("192.0.2.5", 1))
    answer = await browser.post("/sign-in", {"name": "Ada", "password": "wrong"}, headers=FORWARDED)
    assert answer.status_code == 401
    assert "strict-transport-security" not in answer.headers
    (entry,) = await site.audited(action="session.sign_in")
    assert entry.ip == "192.0.2.5"


@pytest.mark.parametrize(
    ("forwarded", "ip"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("not an address", "10.1.1.1"),
        ("", "10.1.1.1"),
    ],
)
async def test_a_trusted_proxys_last_strange_hop_is_the_caller(  # case 66
    https_site: Site, forwarded: str, ip: str
) -> None:
    browser = https_site.browser(client=("10.1.1.1", 1))
    await browser.post(
        "/sign-in", {"name": "Ada", "password": "wrong"},
        headers={"X-Forwarded-For": forwarded, "Origin": "https://desk.example.com"},
    )  # fmt: skip
    (entry,) = await https_site.audited(action="session.sign_in")
    assert entry.ip == ip


@pytest.mark.parametrize("path", ["/people?id=1&id=2", "/audit?actor=a&actor=b", "/sign-in?next=/a&next=/b"])
async def test_a_parameter_given_twice_is_422(site: Site, path: str) -> None:  # case 68
    answer = await (await site.signed_in()).get(path)
    assert answer.status_code == 422
    assert "more than once" in answer.text


async def test_a_form_field_given_twice_is_a_problem_of_that_field(site: Site) -> None:  # case 68
    browser = await site.signed_in()
    token = await browser.form_token()
    body = f"_csrf={token}&name=eve&name=mallory&role=viewer&password=some+long+phrase"
    answer = await browser.http.post(
        "/people", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 422
    assert "more than once" in answer.text


async def test_a_body_beyond_a_megabyte_is_413_and_is_not_read(site: Site) -> None:  # case 65
    browser = await site.signed_in()
    token = await browser.form_token()
    answer = await browser.post("/people", {"name": "x" * 1_100_000}, token=token)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"

    async def lying() -> AsyncIterator[bytes]:
        yield f"_csrf={token}&name=".encode()
        for _ in range(20):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await browser.http.post("/people", content=lying(), headers=headers)).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [{f"x-{n}": "y" for n in range(150)}, {"x-long": "y" * 40_000}],
    ids=["too many", "too long"],
)
async def test_headers_beyond_reason_are_431(site: Site, headers: dict[str, str]) -> None:  # case 65
    assert (await site.browser().get("/sign-in", headers=headers)).status_code == 431


@pytest.mark.parametrize("name", ["token", "access_token", "api_key", "TOKEN"])
async def test_a_token_in_an_address_is_refused_and_in_no_log(site: Site, name: str) -> None:  # case 16
    token = await site.token("admin")
    with capture_logs() as logs:
        answer = await site.browser().get(f"/api/v1/jobs?{name}={token}")
        await site.browser().get(f"/people?{name}={token}")
    assert answer.status_code == 400
    assert token not in repr(logs)
    assert {entry["path"] for entry in logs if entry["event"] == "request"} == {"/api/v1/jobs", "/people"}


@pytest.mark.parametrize("path", ["/x%0d%0aINJECTED", "/x%1b[2J", "/x%00", "/x%E2%80%AEevil", "/x%7f"])
async def test_a_hostile_path_is_escaped_in_the_log(site: Site, path: str) -> None:  # case 34
    with capture_logs() as logs:
        await site.browser().get(path)
    (entry,) = [entry for entry in logs if entry["event"] == "request"]
    assert entry["path"].isprintable()
    assert entry["path"].startswith("/x\\")


def test_text_for_a_log_or_a_terminal_has_nothing_that_moves_the_cursor() -> None:  # case 34
    hostile = "a\r\nb\x1b[31m\x9b2J\u2028\u202ec\x00\ud800"
    assert printable(hostile) == "a\\r\\nb\\x1b[31m\\x9b2J\\u2028\\u202ec\\x00\\ud800"
    assert printable("Zażółć 日本 /path?x=1") == "Zażółć 日本 /path?x=1"


async def test_the_api_answers_json_that_no_browser_renders(site: Site) -> None:  # case 30
    token = await site.token("viewer")
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    answer = await site.browser().get("/api/v1/workers", headers=headers)
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert json.loads(answer.text) is not None


@pytest.mark.parametrize(
    "query", ["before=x", "after=" + "9" * 400, "actor=" + "x" * 10_000, "object=%00", "before=' OR 1=1--"]
)
async def test_a_parameter_out_of_range_is_422(site: Site, query: str) -> None:  # cases 33 and 35
    assert (await (await site.signed_in()).get(f"/audit?{query}")).status_code == 422


def _is_strict(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert all(directive in policy.split("; ") for directive in POLICY)
    assert "unsafe" not in policy
    assert "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
    assert "server" not in answer.headers


@pytest.fixture(autouse=True)
def _plain_structlog() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
