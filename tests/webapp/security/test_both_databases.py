"""The pages of people, tokens and the audit log on SQLite and on PostgreSQL: their SELECTs are not the same to both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.webapp.site import PASSWORD, running_site
from webapp.auth import CurrentUser


async def test_a_desks_first_day_on_either_database(database_url: str, tmp_path: Path) -> None:
    async with running_site(database_url, tmp_path) as site:
        admin = await site.signed_in()
        await admin.post("/people", {"name": "olga", "role": "operator", "password": PASSWORD})
        await admin.post("/tokens", {"name": "robot", "role": "viewer", "expires_days": "30"})
        olga = site.browser()
        assert (await olga.sign_in("olga")).status_code == 303
        assert (await olga.get("/people")).status_code == 403
        for path, shown in (
            ("/people", "olga"),
            ("/tokens", "robot"),
            ("/audit", "token.add"),
            ("/audit?actor=Ad&action=user.add&object=user", "user.add"),
            ("/audit?denied=1", "needs"),
            ("/audit/export", "session.sign_in"),
            ("/account", "127.0.0.1"),
            ("/settings", "DATABASE_URL"),
        ):
            page = await admin.get(path)
            assert page.status_code == 200, path
            assert shown in page.text, path
        assert {entry.action for entry in await site.audited(actor="Ada", denied=False)} == {
            "user.add", "token.add", "session.sign_in", "audit.export",
        }  # fmt: skip


async def test_standing_is_asked_for_many_at_once(database_url: str, tmp_path: Path) -> None:
    async with running_site(database_url, tmp_path) as site:
        await site.person("Ada", "admin")
        olga = await site.signed_in("olga", "operator")
        user = site.people["olga"]
        alive = CurrentUser(user.id, "olga", "operator", 1, session_id=olga.session_id)
        gone = CurrentUser(user.id, "olga", "operator", 1, session_id=site.people["Ada"].id)
        authenticator = site.app.state.authenticator
        found = await authenticator.standing([alive, gone])
        assert found == {alive: alive, gone: None}
        admin = await site.signed_in()
        await admin.post(f"/people/{user.id}/role", {"role": "viewer"})
        (now,) = (await authenticator.standing([alive])).values()
        assert (now.role, now.auth_version) == ("viewer", 2)
        await admin.post(f"/people/{user.id}/disable")
        assert await authenticator.standing([alive]) == {alive: None}


@pytest.mark.parametrize("path", ["/people", "/tokens", "/audit"])
async def test_a_page_of_administration_is_not_slow_because_there_is_much(
    database_url: str, tmp_path: Path, path: str
) -> None:
    """Each page is a handful of statements, however many rows there are."""
    import sqlalchemy as sa

    async with running_site(database_url, tmp_path) as site:
        admin = await site.signed_in()
        await admin.get(path)
        statements: list[str] = []
        sa.event.listen(
            site.database.engine.sync_engine,
            "before_cursor_execute",
            lambda *args: statements.append(args[2]),
        )
        assert (await admin.get(path)).status_code == 200
        assert (
            len([one for one in statements if one.lstrip().upper().startswith(("SELECT", "WITH"))]) <= 12
        ), statements
