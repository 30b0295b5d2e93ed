"""What may be done with people and tokens. Each change is audited, and reaches every process within two seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts import passwords, policy, throttle
from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.accounts.crypto import new_token, token_hash
from worker.accounts.models import ApiToken, Session, User
from worker.db.base import utc_now
from worker.db.session import Database, changed
from worker.errors import Invalid, NotFound, WrongPassword

TOKEN_PREFIX = "mdesk_"  # noqa: S105 # a mark by which secret scanners know our tokens, not a secret
_TOKEN = re.compile(TOKEN_PREFIX + r"([A-Za-z0-9-]{10})_[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class NewToken:
    """`token` is shown to its maker once and kept nowhere."""

    token: str
    token_id: UUID


# People


async def add_user(database: Database, name: str, *, role: str, password: str, actor: Actor) -> User:
    """Adds a person who can sign in.

    Raises:
        Invalid: naming the fields, when the name is taken or the password is refused.
    """
    actor.require("admin")
    name, role = policy.checked_name(name), policy.checked_role(role)
    password_hash = await passwords.hash_password(password, name)
    async with database.transaction() as session:
        return await _insert_user(session, name, role, password_hash, actor=actor)


async def set_role(session: AsyncSession, user_id: UUID, role: str, *, actor: Actor) -> None:
    """Gives a person another role; it holds from their next click and message on."""
    actor.require("admin")
    await _lock_admins(session)
    user = await _user(session, user_id)
    before, user.role = user.role, policy.checked_role(role)
    if before == role:
        return
    await _keep_an_admin(session)
    await _stand_differently(session, user)
    await audit(
        session, actor, "user.set_role", "user", user_id, before={"role": before}, after={"role": role}
    )


async def disable_user(session: AsyncSession, user_id: UUID, *, actor: Actor) -> None:
    """Their sessions, tokens and open pages end within two seconds. What they did stays in the audit log."""
    actor.require("admin")
    await _lock_admins(session)
    user = await _user(session, user_id)
    if user.disabled_at is not None:
        return
    user.disabled_at = utc_now()
    await _keep_an_admin(session)
    await _end_sessions(session, user_id)
    await _stand_differently(session, user)
    await audit(session, actor, "user.disable", "user", user_id, after={"name": user.name})


async def enable_user(session: AsyncSession, user_id: UUID, *, actor: Actor) -> None:
    actor.require("admin")
    user = await _user(session, user_id)
    if user.disabled_at is None:
        return
    user.disabled_at = None
    await _stand_differently(session, user)
    await audit(session, actor, "user.enable", "user", user_id, after={"name": user.name})


async def set_password(
    database: Database, current: str, new: str, *, actor: Actor, keep_session: UUID | None = None
) -> None:
    """Changes one's own password; every other session of this person ends.

    Raises:
        WrongPassword: and the attempt counts like a failed sign-in.
        Invalid: when the new password is refused.
        Throttled: after too many wrong ones.
    """
    account_key = f"account:{actor.name.casefold()[:200]}"
    async with database.transaction() as session:
        user = await _user(session, actor.user_id)
        await throttle.count(session, account_key, throttle.ACCOUNT, utc_now())
    if not (await passwords.verify(user.password_hash, current)).right:
        async with database.transaction() as session:
            await audit(session, actor, "user.set_password", "user", user.id, denied=True)
        raise WrongPassword
    await _replace_password(database, user.id, new, "user.set_password", actor, keep_session)


async def reset_password(database: Database, user_id: UUID, new: str, *, actor: Actor) -> None:
    """Gives somebody a new password, who then has to sign in again everywhere."""
    actor.require("admin")
    await _replace_password(database, user_id, new, "user.reset_password", actor, None)


async def set_preferences(session: AsyncSession, user_id: UUID, values: Mapping[str, Any]) -> None:
    """Theme, time zone, keys: nobody's business but theirs, so it is not audited."""
    user = await _user(session, user_id)
    user.preferences = {**user.preferences, **values}
    changed(session, "user", user_id, user.auth_version)


# Tokens


async def add_token(
    session: AsyncSession,
    name: str,
    *,
    role: str,
    actor: Actor,
    owner_id: UUID | None = None,
    expires_at: datetime | None = None,
) -> NewToken:
    """Makes a token for a program; without `owner_id` it belongs to the service account called `name`.

    A token's right is the lesser of its role and its owner's current one.

    Raises:
        Invalid: when the name belongs to a person, or the service account has a lesser role.
    """
    actor.require("admin")
    name, role = policy.checked_name(name), policy.checked_role(role)
    owner = await _user(session, owner_id) if owner_id else await _service_account(session, name, role, actor)
    prefix, secret = new_token()[:10].replace("_", "x"), new_token()
    token = f"{TOKEN_PREFIX}{prefix}_{secret}"
    row = ApiToken(
        prefix=prefix,
        token_hash=token_hash(token),
        name=name,
        role=role,
        user_id=owner.id,
        created_at=utc_now(),
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    facts = {"name": name, "role": role, "owner": owner.name, "expires_at": expires_at}
    await audit(session, actor, "token.add", "token", row.id, after=facts)
    return NewToken(token, row.id)


async def revoke_token(session: AsyncSession, token_id: UUID, *, actor: Actor) -> None:
    """The token answers 401 in every process within two seconds."""
    actor.require("admin")
    row = await session.get(ApiToken, token_id)
    if row is None:
        raise NotFound(noun="token", key=str(token_id))
    if row.revoked_at is not None:
        return
    row.revoked_at = utc_now()
    changed(session, "user", row.user_id, 0)
    await audit(session, actor, "token.revoke", "token", token_id, after={"name": row.name})


def token_prefix(token: str) -> str | None:
    """The public part of a token, by which it is found; None for what cannot be one of ours."""
    found = _TOKEN.match(token)
    return found[1] if found else None


# What the actions share


async def _user(session: AsyncSession, user_id: UUID | None) -> User:
    user = await session.get(User, user_id, with_for_update=True) if user_id else None
    if user is None:
        raise NotFound(noun="person", key=str(user_id))
    return user


async def _insert_user(
    session: AsyncSession,
    name: str,
    role: str,
    password_hash: str | None,
    *,
    actor: Actor,
    service: bool = False,
) -> User:
    if await session.scalar(sa.select(User.id).where(sa.func.lower(User.name) == name.lower())):
        raise Invalid({"name": f"{name} is taken"})
    user = User(name=name, role=role, password_hash=password_hash, service=service, created_at=utc_now())
    session.add(user)
    await session.flush()
    facts = {"name": name, "role": role, "service": service}
    await audit(session, actor, "user.add", "user", user.id, after=facts)
    return user


async def _service_account(session: AsyncSession, name: str, role: str, actor: Actor) -> User:
    found = (await session.scalars(sa.select(User).where(sa.func.lower(User.name) == name.lower()))).first()
    if found is None:
        return await _insert_user(session, name, role, None, actor=actor, service=True)
    if not found.service:
        raise Invalid({"name": f"{name} is a person: give the token a name of its own"})
    if not Actor(found.name, found.role).at_least(role):
        raise Invalid({"role": f"the service account {name} is only {found.role}"})
    return found


async def _replace_password(
    database: Database, user_id: UUID, new: str, action: str, actor: Actor, keep_session: UUID | None
) -> None:
    async with database.transaction() as session:
        name = (await _user(session, user_id)).name
    password_hash = await passwords.hash_password(new, name)
    async with database.transaction() as session:
        user = await _user(session, user_id)
        if user.service:
            raise Invalid({"password": "a service account has none: it acts by tokens"})
        user.password_hash = password_hash
        await _end_sessions(session, user_id, keep_session)
        await _stand_differently(session, user)
        await throttle.forgive(session, f"account:{user.name.casefold()[:200]}", "")
        await audit(session, actor, action, "user", user_id)


async def _stand_differently(session: AsyncSession, user: User) -> None:
    """Voids what other processes remember of this person."""
    user.auth_version += 1
    await session.flush()
    changed(session, "user", user.id, user.auth_version)


async def _end_sessions(session: AsyncSession, user_id: UUID, keep: UUID | None = None) -> None:
    ends = sa.update(Session).where(Session.user_id == user_id, Session.ended_at.is_(None))
    await session.execute((ends.where(Session.id != keep) if keep else ends).values(ended_at=utc_now()))


async def _lock_admins(session: AsyncSession) -> None:
    """Two admins who take each other's role away at once: one of them comes second, and is refused."""
    await session.execute(sa.select(User.id).where(User.role == "admin").order_by(User.id).with_for_update())


async def _keep_an_admin(session: AsyncSession) -> None:
    """Nobody locks the last admin out, themselves included."""
    await session.flush()
    left = sa.select(User.id).where(User.role == "admin", User.service.is_(False), User.disabled_at.is_(None))
    if await session.scalar(left.limit(1)) is None:
        raise Invalid({"role": "this is the last admin: make somebody else admin first"})
