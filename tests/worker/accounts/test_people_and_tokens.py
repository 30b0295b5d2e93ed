"""People, roles and tokens: what ends when somebody's standing changes (cases 9, 12 and 15)."""

from __future__ import annotations

import asyncio
import re

import pytest
import sqlalchemy as sa

from tests.worker.accounts.conftest import CONSOLE, HERE, PASSWORD, as_actor, entries
from worker.accounts import actions
from worker.accounts.actor import ENGINE, Actor, cli_actor, lesser
from worker.accounts.crypto import token_hash
from worker.accounts.models import ApiToken, Session, User
from worker.accounts.signing_in import end_session, sign_in
from worker.db.session import Database
from worker.errors import BadCredentials, Denied, Invalid, NotFound, Throttled, WrongPassword

NEW = "quite another long phrase"


async def test_changing_the_password_needs_the_current_one_and_ends_the_other_sessions(  # case 9
    database: Database, ada: User
) -> None:
    here, there = (
        await sign_in(database, "ada", PASSWORD, HERE),
        await sign_in(database, "ada", PASSWORD, HERE),
    )
    with pytest.raises(WrongPassword):
        await actions.set_password(database, "wrong", NEW, actor=as_actor(ada), keep_session=here.session_id)
    assert await _living(database, ada) == {here.session_id, there.session_id}
    await actions.set_password(database, PASSWORD, NEW, actor=as_actor(ada), keep_session=here.session_id)
    assert await _living(database, ada) == {here.session_id}
    with pytest.raises(BadCredentials):
        await sign_in(database, "ada", PASSWORD, HERE)
    await sign_in(database, "ada", NEW, HERE)
    assert [entry.denied for entry in await entries(database, action="user.set_password")] == [True, False]


async def test_the_current_password_cannot_be_guessed_from_an_open_session(
    database: Database, ada: User
) -> None:
    for _ in range(6):
        with pytest.raises(WrongPassword):
            await actions.set_password(database, "wrong", NEW, actor=as_actor(ada))
    with pytest.raises(Throttled):
        await actions.set_password(database, PASSWORD, NEW, actor=as_actor(ada))


async def test_an_admin_gives_a_new_password_and_all_sessions_end(
    database: Database, ada: User, olga: User
) -> None:
    await sign_in(database, "olga", PASSWORD, HERE)
    with pytest.raises(Denied):
        await actions.reset_password(database, ada.id, NEW, actor=as_actor(olga))
    await actions.reset_password(database, olga.id, NEW, actor=as_actor(ada))
    assert await _living(database, olga) == set()
    await sign_in(database, "olga", NEW, HERE)


async def test_disabling_ends_every_session_and_raises_the_auth_version(
    database: Database, ada: User, olga: User
) -> None:  # case 12
    await sign_in(database, "olga", PASSWORD, HERE)
    async with database.transaction() as session:
        await actions.disable_user(session, olga.id, actor=as_actor(ada))
    assert await _living(database, olga) == set()
    assert await _auth_version(database, olga) == olga.auth_version + 1
    async with database.transaction() as session:
        await actions.enable_user(session, olga.id, actor=as_actor(ada))
    await sign_in(database, "olga", PASSWORD, HERE)


async def test_another_role_raises_the_auth_version_and_the_same_role_does_nothing(
    database: Database, ada: User, olga: User
) -> None:
    for role in ("viewer", "viewer"):
        async with database.transaction() as session:
            await actions.set_role(session, olga.id, role, actor=as_actor(ada))
    assert await _auth_version(database, olga) == olga.auth_version + 1
    (entry,) = await entries(database, action="user.set_role")
    assert (entry.before, entry.after) == ({"role": "operator"}, {"role": "viewer"})


async def test_nobody_locks_the_last_admin_out(database: Database, ada: User, olga: User) -> None:
    for action in (
        lambda session: actions.disable_user(session, ada.id, actor=as_actor(ada)),
        lambda session: actions.set_role(session, ada.id, "viewer", actor=as_actor(ada)),
    ):
        with pytest.raises(Invalid, match="last admin"):
            async with database.transaction() as session:
                await action(session)


async def test_two_admins_who_disable_each_other_at_once_leave_one(
    database: Database, ada: User, olga: User
) -> None:
    async with database.transaction() as session:
        await actions.set_role(session, olga.id, "admin", actor=as_actor(ada))

    async def disable(user: User) -> None:
        async with database.transaction() as session:
            await actions.disable_user(session, user.id, actor=CONSOLE)

    ends = await asyncio.gather(disable(ada), disable(olga), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Invalid", "NoneType"]


@pytest.mark.parametrize("name", ["Ada", "ADA", " ada "])
async def test_a_name_is_taken_in_whatever_case(database: Database, ada: User, name: str) -> None:
    with pytest.raises(Invalid, match="taken"):
        await actions.add_user(database, name, role="viewer", password=NEW, actor=as_actor(ada))


async def test_only_admins_keep_people_and_tokens(
    database: Database, ada: User, olga: User
) -> None:  # case 46
    actor = as_actor(olga)
    with pytest.raises(Denied):
        await actions.add_user(database, "eve", role="admin", password=PASSWORD, actor=actor)
    for action in (
        lambda session: actions.set_role(session, olga.id, "admin", actor=actor),
        lambda session: actions.disable_user(session, ada.id, actor=actor),
        lambda session: actions.add_token(session, "mine", role="admin", actor=actor),
    ):
        with pytest.raises(Denied):
            async with database.transaction() as session:
                await action(session)


async def test_a_session_is_ended_by_its_owner_or_an_admin(database: Database, ada: User, olga: User) -> None:
    hers, his = (
        await sign_in(database, "olga", PASSWORD, HERE),
        await sign_in(database, "ada", PASSWORD, HERE),
    )
    with pytest.raises(Denied):
        async with database.transaction() as session:
            await end_session(session, his.session_id, actor=as_actor(olga))
    async with database.transaction() as session:
        await end_session(session, hers.session_id, actor=as_actor(ada))
    assert await _living(database, olga) == set()
    with pytest.raises(NotFound):
        async with database.transaction() as session:
            await end_session(session, ada.id, actor=as_actor(ada))


async def test_a_token_is_shown_once_and_kept_as_a_hash(database: Database, ada: User) -> None:  # case 15
    async with database.transaction() as session:
        made = await actions.add_token(session, "robot", role="operator", actor=as_actor(ada))
    assert re.fullmatch(r"mdesk_[A-Za-z0-9-]{10}_[A-Za-z0-9_-]{43}", made.token)
    async with database.session() as session:
        kept = await session.get_one(ApiToken, made.token_id)
        owner = await session.get_one(User, kept.user_id)
    assert kept.token_hash == token_hash(made.token)
    assert made.token not in repr(vars(kept))
    assert actions.token_prefix(made.token) == kept.prefix
    assert (owner.service, owner.password_hash, owner.name) == (True, None, "robot")
    assert made.token not in repr(await entries(database))


async def test_a_second_token_of_a_service_account_cannot_have_more_rights(
    database: Database, ada: User
) -> None:
    async with database.transaction() as session:
        await actions.add_token(session, "robot", role="viewer", actor=as_actor(ada))
        await actions.add_token(session, "Robot", role="viewer", actor=as_actor(ada))
    for name, role in (("robot", "admin"), ("Ada", "viewer")):
        with pytest.raises(Invalid):
            async with database.transaction() as session:
                await actions.add_token(session, name, role=role, actor=as_actor(ada))


async def test_revoking_a_token_twice_is_one_entry(database: Database, ada: User) -> None:
    async with database.transaction() as session:
        made = await actions.add_token(session, "robot", role="viewer", actor=as_actor(ada))
    for _ in range(2):
        async with database.transaction() as session:
            await actions.revoke_token(session, made.token_id, actor=as_actor(ada))
    assert len(await entries(database, action="token.revoke")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mdesk_",
        "mdesk_short_x",
        "mdesk_ab cdefghi_" + "x" * 43,
        "x" * 60,
        "mdesk_\x00bcdefghij_" + "x" * 43,
    ],
)
def test_what_cannot_be_a_token_is_not_looked_for(text: str) -> None:
    assert actions.token_prefix(text) is None


def test_a_role_includes_the_lesser_ones() -> None:
    operator = Actor("olga", "operator")
    assert [operator.at_least(role) for role in ("viewer", "operator", "admin")] == [True, True, False]
    assert not Actor("nobody", "").at_least("viewer")
    assert lesser("admin", "viewer") == "viewer"
    assert ENGINE.at_least("admin")
    assert cli_actor().via == "cli"
    with pytest.raises(Denied, match="needs the role admin; you are operator"):
        operator.require("admin")


async def _living(database: Database, user: User) -> set[object]:
    async with database.session() as session:
        found = await session.scalars(
            sa.select(Session.id).where(Session.user_id == user.id, Session.ended_at.is_(None))
        )
        return set(found)


async def _auth_version(database: Database, user: User) -> int | None:
    async with database.session() as session:
        return await session.scalar(sa.select(User.auth_version).where(User.id == user.id))
