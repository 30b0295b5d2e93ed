"""Signing in and out, and the one set-up link: the actions that begin and end a session."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts import passwords, policy, throttle, tickets
from worker.accounts.actor import Actor
from worker.accounts.audit import audit
from worker.accounts.crypto import new_token, token_hash
from worker.accounts.models import OneTimeToken, Session, User
from worker.db.base import utc_now
from worker.db.session import Database, changed
from worker.errors import AlreadySetUp, BadCredentials, NotFound, SetupClosed, Throttled


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a sign-in comes from."""

    ip: str = ""
    user_agent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session. `token` goes into the browser's cookie and is kept nowhere else."""

    token: str
    session_id: UUID
    user_id: UUID
    name: str


async def sign_in(database: Database, name: str, password: str, caller: Caller) -> SignedIn:
    """Begins a session. Every attempt is counted before the password is looked at, so parallel guesses gain nothing.

    Raises:
        BadCredentials: the same for an unknown name, a wrong password, a disabled person and a service account.
        Throttled: from the sixth failure in 5 minutes for this name, or the thirty-first in a minute from this address.
    """
    if passwords.busy():
        raise Throttled(retry_after_s=1)
    account_key, address_key = f"account:{name.casefold()[:200]}", f"address:{caller.ip}"
    async with database.transaction() as session:
        now = utc_now()
        pause = await throttle.count(session, account_key, throttle.ACCOUNT, now)
        pause = max(pause, await throttle.count(session, address_key, throttle.ADDRESS, now))
        user = await _person(session, name)
    checked = await passwords.verify(user.password_hash if user else None, password)
    async with database.transaction() as session:
        if user is None or not checked.right:
            await _audit_failure(session, name, caller)
        else:
            await throttle.forgive(session, account_key, address_key)
            if checked.new_hash:
                await session.execute(
                    sa.update(User).where(User.id == user.id).values(password_hash=checked.new_hash)
                )
            return await begin_session(session, user, caller)
    raise Throttled(retry_after_s=pause) if pause else BadCredentials()


async def begin_session(session: AsyncSession, user: User, caller: Caller) -> SignedIn:
    token, now = new_token(), utc_now()
    row = Session(
        token_hash=token_hash(token),
        user_id=user.id,
        created_at=now,
        last_seen_at=now,
        expires_at=now + policy.SESSION_LENGTH,
        ip=caller.ip[:64],
        user_agent=caller.user_agent[:300],
    )
    session.add(row)
    await session.flush()
    await audit(session, _actor(user, caller), "session.sign_in", "session", row.id)
    return SignedIn(token, row.id, user.id, user.name)


async def sign_out(session: AsyncSession, session_id: UUID, *, actor: Actor) -> None:
    """Ends one's own session; its open pages close within two seconds."""
    await _end(session, session_id, actor, "session.sign_out")


async def end_session(session: AsyncSession, session_id: UUID, *, actor: Actor) -> None:
    """Ends a session: one's own, or as an admin anybody's."""
    owner = await session.scalar(sa.select(Session.user_id).where(Session.id == session_id))
    if owner is None:
        raise NotFound(noun="session", key=str(session_id))
    if owner != actor.user_id:
        actor.require("admin")
    await _end(session, session_id, actor, "session.end")


async def setup_link(session: AsyncSession, base_url: str) -> str:
    """The address where the first admin is made: works once, for 15 minutes; an older link stops working.

    Raises:
        AlreadySetUp: when there are people on this desk.
    """
    if await has_people(session):
        raise AlreadySetUp
    await session.execute(sa.delete(OneTimeToken).where(OneTimeToken.purpose == tickets.SETUP))
    token = await tickets.issue(session, tickets.SETUP, tickets.SETUP_LIFE)
    return f"{base_url.rstrip('/')}/set-up?link={token}"


async def create_first_admin(
    database: Database, link: str, name: str, password: str, caller: Caller
) -> SignedIn:
    """Uses the set-up link up, makes its holder the first admin and signs them in.

    Raises:
        SetupClosed: for a wrong, used or old link, and always once somebody is there.
        Invalid: for a name or password that the policy refuses; the link stays good.
    """
    name = policy.checked_name(name)
    async with database.transaction() as session:
        if not await tickets.is_good(session, tickets.SETUP, link):
            raise SetupClosed
    password_hash = await passwords.hash_password(password, name)
    async with database.transaction() as session:
        if await tickets.consume(session, tickets.SETUP, link) is None or await has_people(session):
            raise SetupClosed
        user = User(name=name, role="admin", password_hash=password_hash, created_at=utc_now())
        session.add(user)
        await session.flush()
        actor = _actor(user, caller)
        await audit(session, actor, "user.add", "user", user.id, after={"name": name, "role": "admin"})
        return await begin_session(session, user, caller)


async def has_people(session: AsyncSession) -> bool:
    return await session.scalar(sa.select(User.id).where(User.service.is_(False)).limit(1)) is not None


async def _person(session: AsyncSession, name: str) -> User | None:
    """Who may sign in under this name, in whatever case it was typed."""
    found = await session.scalars(
        sa.select(User).where(
            sa.func.lower(User.name) == name.strip().lower(),
            User.service.is_(False),
            User.disabled_at.is_(None),
        )
    )
    return found.first()


async def _end(session: AsyncSession, session_id: UUID, actor: Actor, action: str) -> None:
    ended = await session.execute(
        sa.update(Session)
        .where(Session.id == session_id, Session.ended_at.is_(None))
        .values(ended_at=utc_now())
        .returning(Session.user_id)
    )
    user_id = ended.scalar_one_or_none()
    if user_id is None:
        return
    changed(session, "user", user_id, 0)
    await audit(session, actor, action, "session", session_id)


async def _audit_failure(session: AsyncSession, name: str, caller: Caller) -> None:
    actor = Actor(name.strip()[:100] or "?", role="", ip=caller.ip, request_id=caller.request_id)
    await audit(session, actor, "session.sign_in", "session", denied=True)


def _actor(user: User, caller: Caller) -> Actor:
    return Actor(user.name, user.role, "desk", caller.ip, caller.request_id, user.id)
