"""Set-up, sign-in, sign-out and the session's cookie (cases 2, 4, 5, 6, 10, 11, 13, 14, 18 and 23)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.webapp.site import PASSWORD, Site, form_token
from worker.accounts import passwords, signing_in
from worker.accounts.models import OneTimeToken, Session, User
from worker.accounts.policy import SESSION_IDLE, SESSION_LENGTH


async def test_the_set_up_link_makes_the_first_admin_and_looking_does_not_use_it_up(
    site: Site,
) -> None:  # case 2
    browser, link = site.browser(), await _link(site)
    for _ in range(3):
        shown = await browser.get(link)
        assert shown.status_code == 200
    fields = {"token": link.partition("=")[2], "name": "Ada", "password": PASSWORD}
    done = await browser.post("/set-up", fields, token=form_token(shown))
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert (await browser.get("/people")).status_code == 200
    assert (await site.browser().get(link)).status_code == 410
    assert (await site.browser().post("/set-up", fields | {"name": "Eve"})).status_code == 410


@pytest.mark.parametrize("link", ["", "x", "x" * 43, "../../etc/passwd"])
async def test_a_wrong_set_up_link_says_how_to_make_a_good_one(site: Site, link: str) -> None:
    answer = await site.browser().get("/set-up", params={"link": link})
    assert answer.status_code == 410
    assert "m setup-link" in answer.text


async def test_a_set_up_form_that_is_refused_keeps_what_was_typed(site: Site) -> None:
    browser, link = site.browser(), await _link(site)
    fields = {"token": link.partition("=")[2], "name": "Ada", "password": "short"}
    refused = await browser.post("/set-up", fields)
    assert refused.status_code == 422
    assert 'value="Ada"' in refused.text
    assert "short" not in refused.text.replace("too short", "")
    assert (await browser.post("/set-up", fields | {"password": PASSWORD})).status_code == 303


async def test_signs_in_and_leads_to_where_one_wanted_to_go(site: Site) -> None:
    await site.person("Ada", "admin")
    browser = site.browser()
    turned_away = await browser.get("/audit?denied=1")
    assert turned_away.headers["location"] == "/sign-in?next=/audit%3Fdenied%3D1"
    shown = await browser.get(turned_away.headers["location"])
    assert 'name="next" value="/audit?denied=1"' in shown.text
    done = await browser.sign_in("ada", next="/audit?denied=1")
    assert (done.status_code, done.headers["location"]) == (303, "/audit?denied=1")
    assert (await browser.get("/sign-in")).headers["location"] == "/"


@pytest.mark.parametrize(
    "evil",
    [
        "//evil.com", "/\\evil.com", "\\\\evil.com", "https://evil.com", "javascript:alert(1)", "/\t/evil.com",
        " //evil.com", "data:text/html,x", "///evil.com", "/\r\nSet-Cookie: a=b", "evil.com", "",
    ],
)  # fmt: skip
async def test_leads_to_paths_of_this_desk_only(site: Site, evil: str) -> None:  # case 18
    await site.person("Ada", "admin")
    browser = site.browser()
    shown = await browser.get("/sign-in", params={"next": evil})
    assert 'name="next" value="/"' in shown.text
    assert (await browser.sign_in("ada", next=evil)).headers["location"] == "/"
    themed = await (await site.signed_in()).post("/theme", {"theme": "dark", "next": evil})
    assert themed.headers["location"] == "/"


async def test_an_unknown_name_and_a_wrong_password_get_the_same_page(site: Site) -> None:  # case 4
    await site.person("Ada", "admin")
    pages = set()
    for name in ("Ada", "Eve"):
        browser = site.browser()
        token = await browser.form_token()
        answer = await browser.sign_in(name, "wrong", _csrf=token)
        assert answer.status_code == 401
        pages.add(answer.text.replace(form_token(answer), "").replace(name, "NAME"))
    assert len(pages) == 1


async def test_the_sixth_failure_is_429_with_retry_after_and_leaves_others_alone(
    site: Site,
) -> None:  # case 5
    await site.person("Ada", "admin")
    await site.person("olga", "operator")
    browser = site.browser()
    answers = [await browser.sign_in("Ada", "wrong") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    assert answers[-1].headers["retry-after"] == "30"
    assert (await browser.sign_in("Ada", PASSWORD)).status_code == 429
    assert (await browser.sign_in("olga", PASSWORD)).status_code == 303


async def test_of_fifty_sign_ins_at_once_the_surplus_is_429_and_other_pages_still_answer(  # case 6
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing stands still until everybody has come: as many wait as may, the others hear it at once."""
    admin, go_on = await site.signed_in(), threading.Event()
    verify = passwords._verify

    def slow(*args: Any) -> passwords.Checked:
        go_on.wait(60)
        return verify(*args)

    monkeypatch.setattr(passwords, "_verify", slow)
    browsers = [site.browser(client=(f"192.0.2.{n}", 1)) for n in range(50)]
    tries = [asyncio.create_task(browser.sign_in(f"n{n}", "wrong")) for n, browser in enumerate(browsers)]
    may_wait = passwords.AT_ONCE + passwords.MOST_WAITING
    while sum(task.done() for task in tries) < 50 - may_wait:
        await asyncio.sleep(0.01)
    assert (await admin.get("/account")).status_code == 200
    go_on.set()
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*tries))
    assert statuses == {429: 50 - may_wait, 401: may_wait}


async def test_what_a_browser_had_before_sign_in_is_worth_nothing_after_it(site: Site) -> None:  # case 10
    await site.person("Ada", "admin")
    browser = site.browser()
    browser.http.cookies.set("session", "chosen-by-the-attacker")
    before = await browser.form_token()
    done = await browser.sign_in("Ada")
    chosen = _cookies(done)["session"].value
    assert chosen not in ("chosen-by-the-attacker", "")
    assert (await browser.http.post("/theme", data={"_csrf": before, "theme": "dark"})).status_code == 403
    planted = site.browser()
    planted.http.cookies.set("session", "chosen-by-the-attacker")
    assert (await planted.get("/people")).status_code == 303


async def test_signing_in_again_ends_the_session_this_browser_had(site: Site) -> None:
    browser = await site.signed_in()
    token, old = form_token(await browser.get("/account")), browser.http.cookies["session"]
    await browser.http.post("/sign-in", data={"_csrf": token, "name": "Ada", "password": PASSWORD})
    thief = site.browser()
    thief.http.cookies.set("session", old)
    assert (await thief.get("/account")).status_code == 303


async def test_after_sign_out_the_old_cookie_is_nobody_at_once(site: Site) -> None:  # case 11
    browser = await site.signed_in()
    cookie = browser.http.cookies["session"]
    done = await browser.post("/sign-out")
    assert done.headers["location"] == "/sign-in"
    assert _cookies(done)["session"]["max-age"] == "0"
    thief = site.browser()
    thief.http.cookies.set("session", cookie)
    assert (await thief.get("/people")).headers["location"].startswith("/sign-in")


@pytest.mark.parametrize(
    "moved",
    [
        {"last_seen_at": SESSION_IDLE},
        {"created_at": SESSION_LENGTH, "expires_at": SESSION_LENGTH},
    ],
    ids=["idle for 30 minutes", "12 hours old"],
)
async def test_a_session_ends_by_itself(site: Site, moved: dict[str, timedelta]) -> None:  # case 13
    browser = await site.signed_in()
    assert (await browser.get("/account")).status_code == 200
    async with site.database.transaction() as session:
        row = await session.get_one(Session, browser.session_id)
        for name, time in moved.items():
            setattr(row, name, getattr(row, name) - time)
    site.app.state.authenticator.hear("resync", {})
    assert (await browser.get("/account")).status_code == 303


async def test_a_session_in_use_is_marked_as_seen_at_most_every_two_minutes(site: Site) -> None:
    browser = await site.signed_in()
    for ago, is_marked in ((timedelta(minutes=1), False), (timedelta(minutes=3), True)):
        async with site.database.transaction() as session:
            row = await session.get_one(Session, browser.session_id)
            row.last_seen_at -= ago
            stored = row.last_seen_at
        site.app.state.authenticator.hear("resync", {})
        assert (await browser.get("/account")).status_code == 200
        await asyncio.gather(*site.app.state.authenticator._marks)
        async with site.database.session() as session:
            assert ((await session.get_one(Session, browser.session_id)).last_seen_at > stored) is is_marked


async def test_the_cookie_on_https_is_host_only_secure_httponly_and_lax(https_site: Site) -> None:  # case 14
    await https_site.person("Ada", "admin")
    browser = https_site.browser()
    done = await browser.post(
        "/sign-in", {"name": "Ada", "password": PASSWORD}, headers={"Origin": "https://desk.example.com"}
    )
    cookie = _cookies(done)["__Host-session"]
    assert len(cookie.value) >= 43
    assert cookie["secure"]
    assert cookie["httponly"]
    assert (cookie["samesite"].lower(), cookie["path"], cookie["domain"]) == ("lax", "/", "")


async def test_the_cookie_is_secure_behind_a_proxy_that_ends_tls(https_site: Site) -> None:  # case 14
    await https_site.person("Ada", "admin")
    browser = https_site.browser(client=("10.1.2.3", 1))
    browser.http.base_url = httpx.URL("http://desk.example.com")
    done = await browser.http.get("/sign-in")
    assert _cookies(done)["__Host-visit"]["secure"]


@pytest.mark.parametrize("change", ["x{}", "{}x", "{}; session=other", "", "'\"", "\x80\xff"])
async def test_a_changed_cookie_is_nobody(site: Site, change: str) -> None:  # case 14
    browser = await site.signed_in()
    cookie = change.format(browser.http.cookies["session"])
    headers = [(b"cookie", f"session={cookie}".encode("latin-1"))]
    assert (await site.browser().get("/account", headers=headers)).status_code == 303


async def test_a_form_without_its_token_signs_nobody_in(site: Site) -> None:  # case 23
    await site.person("Ada", "admin")
    browser = site.browser()
    for token in ("", "x", "x.y", "ą.ę"):
        answer = await browser.http.post(
            "/sign-in", data={"_csrf": token, "name": "Ada", "password": PASSWORD}
        )
        assert answer.status_code == 403
        assert "session" not in _cookies(answer)


async def test_an_expired_session_on_an_htmx_request_sends_the_whole_page_to_sign_in(site: Site) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://127.0.0.1:8000/audit?actor=ada"}
    answer = await site.browser().get("/people", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/sign-in?next=/audit%3Factor%3Dada"
    assert "location" not in answer.headers


async def test_a_form_sent_after_the_session_ended_leads_to_sign_in_and_back(site: Site) -> None:
    answer = await site.browser().post(
        "/people", {"name": "x"}, token="x", headers={"Referer": "http://127.0.0.1:8000/people"}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/people")


async def test_nothing_that_signs_in_stands_in_the_database_in_the_clear(site: Site) -> None:
    await site.person("Ada", "admin")
    browser, token = site.browser(), await site.token("admin")
    await browser.sign_in("Ada")
    link = (await _link(site, people=False)).partition("=")[2]
    secrets = (browser.http.cookies["session"], token, PASSWORD, link)
    async with site.database.session() as session:
        tables = [
            row for model in (User, Session, OneTimeToken) for row in await session.scalars(sa.select(model))
        ]
    kept = repr([vars(row) for row in tables])
    assert not [secret for secret in secrets if secret in kept]


async def _link(site: Site, *, people: bool = True) -> str:
    async with site.database.transaction() as session:
        if not people:
            await session.execute(sa.update(User).values(service=True))
        return (await signing_in.setup_link(session, "")).strip()


def _cookies(answer: httpx.Response) -> SimpleCookie:
    jar: SimpleCookie = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        jar.load(line)
    return jar
