"""Text that wants to be markup, a formula or a terminal command stays text (cases 28, 29, 31, 32, 33, 48, 72)."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.webapp.site import PASSWORD, Site, running_site
from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.accounts.signing_in import Caller, begin_session
from worker.joblogs import maintenance

HOSTILE = [
    "<script>window.x=1</script>",
    '"onmouseover="window.x=1',
    "</textarea><svg onload=window.x=1>",
    "'><img src=x onerror=window.x=1>",
    "{{ 7*7 }}",
    "</title><script>window.x=1</script>",
    "<!--\u2028-->",
    "javascript:window.x=1",
]


class Markup(HTMLParser):
    """Finds what a browser would run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script" and "src" not in given:
            self.dangers.append("an inline script")
        self.dangers += [
            f"{tag} {name}" for name in given if name.startswith("on") or name in ("style", "srcdoc")
        ]
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "formaction")
        ]
        self.dangers += [
            link for link in self.links if re.match(r"\s*(javascript|data|vbscript):", link, re.IGNORECASE)
        ]
        self.dangers += [link for link in self.links if link.startswith(("//", "http:", "https:"))]


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_stands_in_names_and_entries_is_text_on_every_page(
    site: Site, text: str
) -> None:  # case 28
    browser = await site.signed_in()
    async with site.database.transaction() as session:
        eve = Actor(text, text[:10], text[:10], text[:60])
        await audit(
            session, eve, text[:60], text[:40], text, before={text: text}, after={"v": [text, {text: text}]}
        )
        await begin_session(session, site.people["Ada"], Caller(text[:60], text))
    await browser.sign_in(text, "wrong")
    for path in ("/people", "/account", "/audit", "/tokens", "/settings"):
        page = await browser.get(path)
        assert page.status_code == 200
        assert Markup(page.text).dangers == []
    assert "49" not in re.findall(r"<strong>(.*?)</strong>", (await browser.get("/audit")).text)


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_was_asked_or_typed_comes_back_as_text(site: Site, text: str) -> None:  # cases 29 and 31
    browser = await site.signed_in()
    answers = [
        await browser.get("/audit", params={"actor": text, "object": text, "action": text}),
        await browser.get("/nothing", params={"q": text}),
        await browser.get(f"/{text}"),
        await browser.post("/people", {"name": text, "role": text, "password": "x"}),
        await browser.post("/tokens", {"name": text, "role": text, "expires_days": text}),
        await site.browser().get("/sign-in", params={"next": text}),
        await site.browser().sign_in(text, "wrong", next=text),
        await site.browser().get("/set-up", params={"link": text}),
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert Markup(answer.text).dangers == []


@pytest.mark.parametrize(
    "text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=1+cmd|' /C calc'!A0"]
)
async def test_an_exported_cell_is_never_a_formula(site: Site, text: str) -> None:  # case 32
    async with site.database.transaction() as session:
        await audit(session, Actor(text), "x", "y", text, before={"k": text})
    exported = await (await site.signed_in()).get("/audit/export")
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert exported.headers["content-disposition"].startswith("attachment;")
    rows = list(csv.DictReader(io.StringIO(exported.text, newline="")))
    assert rows
    for row in rows:
        assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert f"'{text}" in [row["actor"] for row in rows]


async def test_an_export_is_itself_an_entry(site: Site) -> None:
    await (await site.signed_in()).get("/audit/export?actor=ada")
    (entry,) = await site.audited(action="audit.export")
    assert entry.after["actor"] == "ada"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("actor=Ada", 1), ("actor=%25", 0), ("actor=_da", 0), ("actor=' OR 1=1--", 0), ("object=user", 1),
        ("action=user.add' OR 'a'='a", 0), ("denied=1", 0), ("object=job", 0),
    ],
)  # fmt: skip
async def test_filters_take_their_text_literally(site: Site, query: str, found: int) -> None:  # case 33
    await site.person("Ada", "admin")
    browser = await site.signed_in()
    async with site.database.transaction() as session:
        await audit(session, Actor("zed"), "job.retry", "thing", "1")
    page = await browser.get(f"/audit?{query}")
    assert page.status_code == 200
    assert bool(page.text.count('<tr id="audit-entry-')) is bool(found)


async def test_the_audit_log_pages_both_ways(site: Site) -> None:
    browser = await site.signed_in()
    async with site.database.transaction() as session:
        for n in range(120):
            await audit(session, Actor("zed"), "x.y", "thing", n)

    async def page(path: str) -> tuple[list[str], dict[str, str]]:
        html = (await browser.get(path)).text
        links = {
            rel: href.replace("&amp;", "&") for href, rel in re.findall(r'href="([^"]+)" rel="(\w+)"', html)
        }
        return re.findall(r"thing <code[^>]*>(\d+)</code>", html), links

    first, links = await page("/audit?actor=zed")
    second, more = await page(links["next"])
    third, last = await page(more["next"])
    assert first + second + third == [str(n) for n in reversed(range(120))]
    assert "next" not in last
    assert "prev" not in links
    assert (await page(last["prev"]))[0] == second
    assert (await page(more["prev"]))[0] == first


SECRETS = {
    "database_url": "postgresql+asyncpg://desk:db-pass-word@db.internal/desk?sslpassword=tls-pass-word",
    "nats_url": "nats://desk:nats-pass-word@nats.internal:4222",
    "redis_url": "rediss://:redis-pass-word@redis.internal",
}


async def test_the_settings_page_shows_every_setting_and_no_secret(
    sqlite_url: str, tmp_path: Path
) -> None:  # case 72
    from dataclasses import replace

    async with running_site(sqlite_url, tmp_path, trusted_proxies=("10.0.0.0/8",)) as site:
        browser = await site.signed_in()
        site.engine.settings = replace(
            site.engine.settings,
            **SECRETS,
            secret_key="the-secret-key-of-this-desk-" + "x" * 20,
            sources={"nats_url": "NATS_URL_FILE"},
        )
        assert (await browser.get("/settings")).text.count("not yet") == 2
        await maintenance.purge(site.database, site.engine.settings)
        page = (await browser.get("/settings")).text
    assert "not yet" not in page
    for hidden in ("pass-word", "the-secret-key"):
        assert hidden not in page
    for shown in (
        "nats.internal",
        "db.internal",
        "M_SECRET_KEY",
        "set, not shown",
        "M_TRUSTED_PROXIES",
        "10.0.0.0/8",
        "file",
    ):
        assert shown in page


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://token-only@host:4222", "nats://***:***@host:4222"),
        ("nats://user:p:w@host", "nats://user:***@host"),
        ("postgresql://u:p@h/d?password=x&a=1", "postgresql://u:***@h/d?password=***&a=1"),
        ("sqlite+aiosqlite:////var/desk.db", "sqlite+aiosqlite:////var/desk.db"),
        ("plain text", "plain text"),
    ],
)
def test_a_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    from webapp.pages.settings import without_password

    assert without_password(url) == shown


async def test_no_page_holds_a_password_that_was_typed(site: Site) -> None:
    browser = await site.signed_in()
    for answer in (
        await site.browser().sign_in("Ada", "my secret typo"),
        await browser.post("/people", {"name": "", "role": "viewer", "password": "my secret typo"}),
        await browser.post("/account/password", {"current": "my secret typo", "password": PASSWORD}),
    ):
        assert "my secret typo" not in answer.text
