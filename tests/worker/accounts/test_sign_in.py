"""Signing in, and what it takes to guess (cases 2, 4, 5 and 10)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.worker.accounts.conftest import CONSOLE, HERE, PASSWORD, as_actor, entries
from worker.accounts import actions, passwords, signing_in
from worker.accounts.crypto import token_hash
from worker.accounts.models import Session, Throttle, User
from worker.accounts.signing_in import Caller, sign_in
from worker.db.session import Database
from worker.errors import AlreadySetUp, BadCredentials, Invalid, SetupClosed, Throttled


async def test_begins_a_session_of_which_only_the_hash_is_kept(database: Database, ada: User) -> None:
    first, second = (
        await sign_in(database, "Ada", PASSWORD, HERE),
        await sign_in(database, " ada ", PASSWORD, HERE),
    )
    assert first.token != second.token
    assert len(first.token) >= 43
    async with database.session() as session:
        kept = await session.get_one(Session, first.session_id)
    assert kept.token_hash == token_hash(first.token)
    assert first.token not in repr(vars(kept))
    assert kept.expires_at - kept.created_at == timedelta(hours=12)
    assert [entry.actor for entry in await entries(database, action="session.sign_in")] == ["Ada", "Ada"]


async def test_a_wrong_name_a_wrong_password_and_a_disabled_person_look_the_same(  # case 4
    database: Database, ada: User, olga: User
) -> None:
    async with database.transaction() as session:
        await actions.disable_user(session, olga.id, actor=as_actor(ada))
        await actions.add_token(session, "robot", role="viewer", actor=as_actor(ada))
    said = []
    for name, password in (
        ("nobody", PASSWORD),
        ("Ada", "wrong"),
        ("olga", PASSWORD),
        ("robot", ""),
        ("", ""),
    ):
        with pytest.raises(BadCredentials) as refused:
            await sign_in(database, name, password, HERE)
        said.append(refused.value.message)
    assert len(set(said)) == 1
    refusals = await entries(database, action="session.sign_in", denied=True)
    assert [entry.actor for entry in refusals] == ["nobody", "Ada", "olga", "robot", "?"]
    assert PASSWORD not in repr(refusals)


async def test_the_sixth_failure_shuts_the_account_also_for_the_right_password(  # case 5
    database: Database, ada: User, olga: User
) -> None:
    for _ in range(5):
        with pytest.raises(BadCredentials):
            await sign_in(database, "ada", "wrong", HERE)
    with pytest.raises(Throttled) as sixth:
        await sign_in(database, "ADA", "wrong", HERE)
    assert sixth.value.facts["retry_after_s"] == 30
    with pytest.raises(Throttled):
        await sign_in(database, "ada", PASSWORD, HERE)
    assert (await sign_in(database, "olga", PASSWORD, HERE)).name == "olga"


async def test_each_further_failure_waits_longer_up_to_a_quarter_of_an_hour(  # case 5
    database: Database, ada: User
) -> None:
    waits = []
    for _ in range(13):
        try:
            await sign_in(database, "ada", "wrong", HERE)
        except BadCredentials:
            continue
        except Throttled as error:
            waits.append(error.facts["retry_after_s"])
            await _let_time_pass(database, timedelta(seconds=waits[-1]))
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


async def test_a_right_password_after_the_wait_clears_the_count(database: Database, ada: User) -> None:
    for _ in range(6):
        with pytest.raises((BadCredentials, Throttled)):
            await sign_in(database, "ada", "wrong", HERE)
    await _let_time_pass(database, timedelta(seconds=31))
    await sign_in(database, "ada", PASSWORD, HERE)
    for _ in range(5):
        with pytest.raises(BadCredentials):
            await sign_in(database, "ada", "wrong", HERE)


async def test_failures_are_forgotten_after_a_quiet_while(database: Database, ada: User) -> None:
    for _ in range(5):
        with pytest.raises(BadCredentials):
            await sign_in(database, "ada", "wrong", HERE)
    await _let_time_pass(database, timedelta(minutes=6))
    with pytest.raises(BadCredentials):
        await sign_in(database, "ada", "wrong", HERE)


async def test_thirty_failures_a_minute_from_one_address_shut_that_address_only(  # case 5
    database: Database, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _make_hashing_free(monkeypatch)
    for n in range(30):
        with pytest.raises(BadCredentials):
            await sign_in(database, f"name{n}", "wrong", HERE)
    with pytest.raises(Throttled):
        await sign_in(database, "name30", "wrong", HERE)
    with pytest.raises(Throttled):
        await sign_in(database, "name31", "wrong", HERE)
    with pytest.raises(BadCredentials):
        await sign_in(database, "name31", "wrong", Caller("192.0.2.2"))


async def test_people_who_sign_in_well_do_not_use_up_their_address(
    database: Database, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _make_hashing_free(monkeypatch, right=True)
    for _ in range(40):
        await sign_in(database, "ada", PASSWORD, HERE)


async def test_parallel_guesses_are_counted_before_they_are_judged(  # case 5
    database: Database, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = await _make_hashing_free(monkeypatch)
    guesses = [sign_in(database, "ada", f"guess {n}", Caller(f"192.0.2.{n}")) for n in range(20)]
    ends = await asyncio.gather(*guesses, return_exceptions=True)
    assert all(isinstance(end, BadCredentials | Throttled) for end in ends), ends
    assert len(judged) == 6


async def test_ending_a_session_twice_is_one_entry(database: Database, ada: User) -> None:
    signed_in = await sign_in(database, "ada", PASSWORD, HERE)
    for _ in range(2):
        async with database.transaction() as session:
            await signing_in.sign_out(session, signed_in.session_id, actor=as_actor(ada))
    assert len(await entries(database, action="session.sign_out")) == 1


# The set-up link


async def test_a_fresh_desk_has_no_account_and_its_link_makes_the_first_admin_once(
    database: Database,
) -> None:  # case 2
    with pytest.raises(BadCredentials):
        await sign_in(database, "admin", "admin", HERE)
    link = await _link(database)
    made = await signing_in.create_first_admin(database, link, "Ada", PASSWORD, HERE)
    assert made.name == "Ada"
    assert (await sign_in(database, "ada", PASSWORD, HERE)).user_id == made.user_id
    with pytest.raises(SetupClosed):
        await signing_in.create_first_admin(database, link, "Eve", PASSWORD, HERE)


async def test_a_newer_link_replaces_the_older_one(database: Database) -> None:
    older, newer = await _link(database), await _link(database)
    with pytest.raises(SetupClosed):
        await signing_in.create_first_admin(database, older, "Eve", PASSWORD, HERE)
    await signing_in.create_first_admin(database, newer, "Ada", PASSWORD, HERE)


async def test_a_link_expires_after_a_quarter_of_an_hour(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.accounts import tickets

    link, now = await _link(database), tickets.utc_now
    monkeypatch.setattr(tickets, "utc_now", lambda: now() + timedelta(minutes=15, seconds=1))
    with pytest.raises(SetupClosed):
        await signing_in.create_first_admin(database, link, "Ada", PASSWORD, HERE)


async def test_a_refused_password_does_not_use_the_link_up(database: Database) -> None:
    link = await _link(database)
    with pytest.raises(Invalid):
        await signing_in.create_first_admin(database, link, "Ada", "short", HERE)
    await signing_in.create_first_admin(database, link, "Ada", PASSWORD, HERE)


async def test_two_browsers_with_one_link_make_one_admin(database: Database) -> None:
    link = await _link(database)
    ends = await asyncio.gather(
        *(signing_in.create_first_admin(database, link, name, PASSWORD, HERE) for name in ("Ada", "Eve")),
        return_exceptions=True,
    )
    assert sorted(type(end).__name__ for end in ends) == ["SetupClosed", "SignedIn"]
    async with database.session() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(User)) == 1


async def test_no_link_once_somebody_is_there_but_programs_do_not_count(database: Database) -> None:
    async with database.transaction() as session:
        await actions.add_token(session, "robot", role="admin", actor=CONSOLE)
    link = await _link(database)
    await actions.add_user(database, "Ada", role="admin", password=PASSWORD, actor=CONSOLE)
    with pytest.raises(SetupClosed):
        await signing_in.create_first_admin(database, link, "Eve", PASSWORD, HERE)
    with pytest.raises(AlreadySetUp):
        await _link(database)


async def _link(database: Database) -> str:
    async with database.transaction() as session:
        url = await signing_in.setup_link(session, "https://desk.example/")
    assert url.startswith("https://desk.example/set-up?link=")
    return url.partition("=")[2]


async def _let_time_pass(database: Database, time: timedelta) -> None:
    """Moves what is stored into the past: the same as waiting."""
    async with database.transaction() as session:
        for row in await session.scalars(sa.select(Throttle)):
            row.window_started_at -= time
            if row.blocked_until is not None:
                row.blocked_until -= time


async def _make_hashing_free(monkeypatch: pytest.MonkeyPatch, *, right: bool = False) -> list[str]:
    judged: list[str] = []

    async def verify(_hash: str | None, password: str) -> Any:
        judged.append(password)
        return passwords.Checked(right=right)

    monkeypatch.setattr(passwords, "verify", verify)
    return judged
