"""SELECTs about callers, people, sessions and tokens."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.accounts.actions import TOKEN_PREFIX
from worker.accounts.actor import lesser
from worker.accounts.models import ApiToken, Session, User
from worker.accounts.policy import SESSION_IDLE

if TYPE_CHECKING:
    from webapp.auth import CurrentUser

# Who calls

_USER = (User.id.label("user_id"), User.name, User.role, User.auth_version, User.preferences)


async def session_holder(connection: AsyncConnection, token_hash: str) -> Any:
    """The session of this hash and whose it is, unless it has ended."""
    return (
        await connection.execute(
            sa.select(
                *_USER,
                Session.id.label("session_id"),
                sa.null().label("token_id"),
                Session.token_hash,
                Session.last_seen_at.label("last_used_at"),
                Session.expires_at,
            )
            .join(User, User.id == Session.user_id)
            .where(Session.token_hash == token_hash, Session.ended_at.is_(None), User.disabled_at.is_(None))
        )
    ).one_or_none()


async def token_holder(connection: AsyncConnection, prefix: str, token_hash: str) -> Any:
    """The token of this prefix whose hash fits, and whose it is, unless it was revoked."""
    found = await connection.execute(
        sa.select(
            *_USER,
            sa.null().label("session_id"),
            ApiToken.id.label("token_id"),
            ApiToken.role.label("token_role"),
            ApiToken.token_hash,
            ApiToken.last_used_at,
            ApiToken.expires_at,
        )
        .join(User, User.id == ApiToken.user_id)
        .where(ApiToken.prefix == prefix, ApiToken.revoked_at.is_(None), User.disabled_at.is_(None))
    )
    rows = found.all()
    return next((row for row in rows if row.token_hash == token_hash), rows[0] if rows else None)


def mark_session(token_hash: str, now: datetime) -> Any:
    return sa.update(Session).where(Session.token_hash == token_hash).values(last_seen_at=now)


def mark_token(token_hash: str, now: datetime) -> Any:
    return sa.update(ApiToken).where(ApiToken.token_hash == token_hash).values(last_used_at=now)


async def standing(
    connection: AsyncConnection, users: Collection[CurrentUser], now: datetime
) -> dict[CurrentUser, CurrentUser | None]:
    """Each caller as they stand now; None for those whose session, token or account has ended."""
    sessions = [user.session_id for user in users if user.session_id]
    tokens = [user.token_id for user in users if user.token_id]
    roles: dict[UUID, tuple[str, int]] = {}
    for key, table, wanted, lives in (
        (Session.id, Session, sessions, _lives(now)),
        (
            ApiToken.id,
            ApiToken,
            tokens,
            [sa.or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > now), ApiToken.revoked_at.is_(None)],
        ),
    ):
        token_role = ApiToken.role if table is ApiToken else User.role
        for piece in range(0, len(wanted), 500):
            found = await connection.execute(
                sa.select(key, User.role, token_role, User.auth_version)
                .join(User, User.id == table.user_id)
                .where(key.in_(wanted[piece : piece + 500]), User.disabled_at.is_(None), *lives)
            )
            roles |= {row[0]: (lesser(row[1], row[2]), row[3]) for row in found}
    return {user: _as_now(user, roles) for user in users}


def _lives(now: datetime) -> list[sa.ColumnElement[bool]]:
    return [Session.ended_at.is_(None), Session.expires_at > now, Session.last_seen_at > now - SESSION_IDLE]


def _as_now(user: CurrentUser, roles: dict[UUID, tuple[str, int]]) -> CurrentUser | None:
    found = roles.get(user.session_id or user.token_id or user.id)
    return replace(user, role=found[0], auth_version=found[1]) if found else None


# Pages


@dataclass(frozen=True, slots=True)
class SessionView:
    id: UUID
    ip: str
    user_agent: str
    last_seen_at: datetime
    is_this: bool


async def sessions_of(connection: AsyncConnection, me: CurrentUser, now: datetime) -> list[SessionView]:
    """The caller's own sessions that live."""
    rows = await connection.execute(
        sa.select(Session.id, Session.ip, Session.user_agent, Session.last_seen_at)
        .where(Session.user_id == me.id, *_lives(now))
        .order_by(Session.last_seen_at.desc())
        .limit(100)
    )
    return [
        SessionView(row.id, row.ip, row.user_agent, row.last_seen_at, row.id == me.session_id) for row in rows
    ]


@dataclass(slots=True)
class PersonView:
    """A person or service account as the People page shows them."""

    id: UUID
    name: str
    role: str
    service: bool
    disabled_at: datetime | None
    created_at: datetime
    last_seen_at: datetime | None
    is_self: bool
    sessions: list[SessionView] = field(default_factory=list)


async def people(connection: AsyncConnection, me: CurrentUser, now: datetime) -> list[PersonView]:
    seen = sa.func.coalesce(
        sa.select(sa.func.max(Session.last_seen_at)).where(Session.user_id == User.id).scalar_subquery(),
        sa.select(sa.func.max(ApiToken.last_used_at)).where(ApiToken.user_id == User.id).scalar_subquery(),
    )
    rows = await connection.execute(
        sa.select(
            User.id,
            User.name,
            User.role,
            User.service,
            User.disabled_at,
            User.created_at,
            seen.label("last_seen_at"),
        ).order_by(User.service, sa.func.lower(User.name))
    )
    found = {row["id"]: PersonView(**row, is_self=row["id"] == me.id) for row in rows.mappings()}
    sessions = await connection.execute(
        sa.select(Session.id, Session.user_id, Session.ip, Session.user_agent, Session.last_seen_at)
        .where(*_lives(now))
        .order_by(Session.last_seen_at.desc())
        .limit(1000)
    )
    for row in sessions:
        view = SessionView(row.id, row.ip, row.user_agent, row.last_seen_at, row.id == me.session_id)
        found[row.user_id].sessions.append(view)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class TokenView:
    id: UUID
    prefix: str
    """How the token begins: enough to tell it from the others, useless to whoever reads it."""
    name: str
    role: str
    owner: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


async def tokens(connection: AsyncConnection) -> list[TokenView]:
    rows = await connection.execute(
        sa.select(
            ApiToken.id,
            (sa.literal(TOKEN_PREFIX) + ApiToken.prefix).label("prefix"),
            ApiToken.name,
            ApiToken.role,
            User.name.label("owner"),
            ApiToken.created_at,
            ApiToken.expires_at,
            ApiToken.last_used_at,
            ApiToken.revoked_at,
        )
        .join(User, User.id == ApiToken.user_id)
        .order_by(ApiToken.revoked_at.is_not(None), ApiToken.id.desc())
        .limit(500)
    )
    return [TokenView(*row) for row in rows]
