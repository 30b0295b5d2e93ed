"""Revocation: password changes, disabled people, lost roles, dead tokens, in this process and in another (cases 9, 12, 15)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.webapp.site import CONSOLE, PASSWORD, Browser, Site
from webapp import auth
from worker.accounts import actions
from worker.accounts.models import ApiToken
from worker.db.base import utc_now
from worker.db.session import Database

NEW = "quite another long phrase"


@pytest.fixture
async def elsewhere(site: Site, sqlite_url: str) -> AsyncIterator[Database]:
    """Another process on the same database, whose messages do not reach the site: as on two hosts without a broker."""
    database = Database(sqlite_url)
    yield database
    await database.close()


async def test_changing_the_password_needs_the_current_one(site: Site) -> None:  # case 9
    browser, other = await site.signed_in(), await site.signed_in()
    refused = await browser.post("/account/password", {"current": "wrong", "password": NEW})
    assert refused.status_code == 403
    assert (await other.get("/account")).status_code == 200
    done = await browser.post("/account/password", {"current": PASSWORD, "password": NEW})
    assert done.status_code == 303
    assert (await browser.get("/account")).status_code == 200
    assert (await other.get("/account")).status_code == 303
    assert (await site.browser().sign_in("Ada", PASSWORD)).status_code == 401
    assert (await site.browser().sign_in("Ada", NEW)).status_code == 303


@pytest.mark.parametrize("password", ["1234567", "password1", "Ada", "x" * 2000])  # case 8
async def test_a_new_password_is_held_against_the_rules(site: Site, password: str) -> None:
    browser = await site.signed_in()
    assert (
        await browser.post("/account/password", {"current": PASSWORD, "password": password})
    ).status_code == 422
    fields = {"name": "eve", "role": "viewer", "password": password}
    refused = await browser.post("/people", fields)
    assert refused.status_code == 422
    assert 'value="eve"' in refused.text
    assert password not in refused.text or password == "Ada"


async def test_disabling_a_person_ends_their_session_and_tokens_in_two_seconds(  # case 12
    site: Site, elsewhere: Database
) -> None:
    await site.person("root", "admin")
    browser = await site.signed_in("olga", "operator")
    async with site.database.transaction() as session:
        owner = site.people["olga"].id
        made = await actions.add_token(session, "hers", role="operator", actor=CONSOLE, owner_id=owner)
    bearer = {"Authorization": f"Bearer {made.token}"}
    assert (await browser.get("/account")).status_code == 200
    assert (await browser.get("/api/v1/workers", headers=bearer)).status_code == 200
    async with elsewhere.transaction() as session:
        await actions.disable_user(session, owner, actor=CONSOLE)
    assert await _becomes(lambda: browser.get("/account"), 303)
    assert await _becomes(lambda: browser.get("/api/v1/workers", headers=bearer), 401)


async def test_a_lesser_role_holds_from_the_next_request_on(
    site: Site, elsewhere: Database
) -> None:  # case 12
    await site.signed_in("root", "admin")
    browser = await site.signed_in("olga", "admin")
    async with site.database.transaction() as session:
        made = await actions.add_token(
            session, "hers", role="admin", actor=CONSOLE, owner_id=site.people["olga"].id
        )
    bearer = {"Authorization": f"Bearer {made.token}"}
    assert (await browser.get("/people")).status_code == 200
    assert (await browser.get("/api/v1/tokens", headers=bearer)).status_code == 200
    async with elsewhere.transaction() as session:
        await actions.set_role(session, site.people["olga"].id, "viewer", actor=CONSOLE)
    assert await _becomes(lambda: browser.get("/people"), 403)
    assert await _becomes(lambda: browser.get("/api/v1/tokens", headers=bearer), 403)
    assert (await browser.get("/api/v1/workers", headers=bearer)).status_code == 200


async def test_a_change_on_this_desk_holds_at_once(site: Site) -> None:
    admin, olga = await site.signed_in(), await site.signed_in("olga", "operator")
    assert (await olga.get("/account")).status_code == 200
    await admin.post(f"/people/{site.people['olga'].id}/disable")
    assert (await olga.get("/account")).status_code == 303


async def test_a_message_of_a_change_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the lookups remembered for an hour, only the message can have made the difference."""
    monkeypatch.setattr(auth, "REMEMBERED_S", 3600)
    await site.signed_in()
    olga = await site.signed_in("olga", "operator")
    assert (await olga.get("/account")).status_code == 200
    async with site.database.transaction() as session:
        await actions.disable_user(session, site.people["olga"].id, actor=CONSOLE)
    assert await _becomes(lambda: olga.get("/account"), 303)


async def test_a_lookup_that_began_before_a_change_is_not_remembered_after_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is read, then the person is disabled and the message heard, and only then the answer is kept."""
    monkeypatch.setattr(auth, "REMEMBERED_S", 3600)
    await site.signed_in()
    olga = await site.signed_in("olga", "operator")
    ask, authenticator = auth.queries.session_holder, site.app.state.authenticator

    async def slowly(*args: object) -> object:
        row = await ask(*args)  # type: ignore[arg-type] # handed through
        authenticator.hear("revoked", {})
        return row

    monkeypatch.setattr(auth.queries, "session_holder", slowly)
    await olga.get("/account")
    monkeypatch.setattr(auth.queries, "session_holder", ask)
    assert authenticator._known == {}


async def test_a_session_is_ended_from_the_people_page(site: Site) -> None:
    admin, olga = await site.signed_in(), await site.signed_in("olga", "operator")
    assert (await olga.post(f"/people/sessions/{admin.session_id}/end")).status_code == 403
    assert (await admin.post(f"/people/sessions/{olga.session_id}/end")).status_code == 303
    assert (await olga.get("/account")).status_code == 303


async def test_a_token_that_was_revoked_or_has_expired_is_401(
    site: Site, elsewhere: Database
) -> None:  # case 15
    revoked, expired = (
        await site.token("admin"),
        await site.token("viewer", expires_at=utc_now() + timedelta(hours=1)),
    )
    browser = site.browser()
    for token in (revoked, expired):
        assert (await _with(browser, token)).status_code == 200
    async with elsewhere.transaction() as session:
        rows = {row.role: row for row in await session.scalars(sa.select(ApiToken))}
        await actions.revoke_token(session, rows["admin"].id, actor=CONSOLE)
        rows["viewer"].expires_at = utc_now() - timedelta(seconds=1)
    assert await _becomes(lambda: _with(browser, revoked), 401)
    assert await _becomes(lambda: _with(browser, expired), 401)


async def test_a_token_is_found_by_its_prefix_and_must_fit_to_the_last_character(
    site: Site,
) -> None:  # case 15
    token, browser = await site.token("admin"), site.browser()
    for wrong in (
        token[:-1] + ("a" if token[-1] != "a" else "b"),
        token[:16] + "_" + "x" * 43,
        token + "x",
        token.lower(),
    ):
        assert (await _with(browser, wrong)).status_code == 401
    assert (await _with(browser, token)).status_code == 200


async def test_the_page_shows_a_new_token_once(site: Site) -> None:  # case 15
    browser = await site.signed_in()
    made = await browser.post("/tokens", {"name": "robot", "role": "viewer", "expires_days": "30"})
    token = next(
        word
        for word in made.text.replace("<", " ").replace(">", " ").split()
        if word.startswith("mdesk_") and len(word) == 60
    )
    assert (await _with(site.browser(), token)).status_code == 200
    assert token not in (await browser.get("/tokens")).text
    assert token[:16] in (await browser.get("/tokens")).text
    assert token not in made.headers.get("set-cookie", "")


async def _with(browser: Browser, token: str) -> object:
    return await browser.get("/api/v1/workers", headers={"Authorization": f"Bearer {token}"})


async def _becomes(ask: Callable[[], Awaitable[object]], status: int) -> bool:
    """Asks until the answer has this status; the promise is two seconds, the patience is for a busy machine."""
    for _ in range(200):
        if (await ask()).status_code == status:  # type: ignore[attr-defined] # an httpx.Response
            return True
        await asyncio.sleep(0.05)
    return False


def test_lookups_are_believed_for_less_than_two_seconds() -> None:
    assert auth.REMEMBERED_S < 2
