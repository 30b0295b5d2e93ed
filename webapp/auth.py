"""Who asks, and whether they may: sessions by cookie, programs by bearer token, forms by a token of our own.

Every route needs a signed-in caller unless its `opt` says `{"public": True}`; `guards=[operator]` or `[admin]` asks for
more. A WebSocket that wants to tell the browser why it closes is public and calls `standing` itself.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import structlog
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope
from sqlalchemy.exc import DBAPIError

from webapp.queries import accounts as queries
from webapp.security import READS, is_api, peer
from worker.accounts.actions import token_prefix
from worker.accounts.actor import Actor, lesser, rank
from worker.accounts.audit import audit_denied
from worker.accounts.crypto import sign, signed_by_us, token_hash
from worker.accounts.policy import SEEN_EVERY, session_lives
from worker.db.base import utc_now
from worker.db.session import Database
from worker.errors import Denied
from worker.live.port import CHANGES, RESYNC, REVOKED

log = structlog.get_logger(__name__)

REMEMBERED_S: Final = 1.5
"""How long an answer of the database is believed where no message of a change arrives."""
MOST_REMEMBERED: Final = 10_000

SESSION: Final = "session"
VISIT: Final = "visit"
"""Cookies. On https their names begin with __Host-: then no neighbouring site can plant one."""

Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The caller, as the database had them at most two seconds ago. A token's `role` is the lesser of two."""

    id: UUID
    name: str
    role: str
    auth_version: int
    session_id: UUID | None = None
    token_id: UUID | None = None
    preferences: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def at_least(self, role: str) -> bool:
        return rank(self.role) >= rank(role)


def actor(connection: Connection) -> Actor:
    """The signed-in caller, as actions and the audit log know them."""
    user, found = connection.scope["user"], peer(connection)
    via = "api" if user.token_id else "desk"
    return Actor(user.name, user.role, via, found.ip, found.request_id, user.id)


# What routes ask for


async def viewer(connection: Connection, handler: BaseRouteHandler) -> None:
    await _require(connection, handler, "viewer")


async def operator(connection: Connection, handler: BaseRouteHandler) -> None:
    """Whoever may act; on a read-only desk nobody, so its forms are not shown either."""
    await _require(connection, handler, "operator")
    connection.app.state.rules.check_acting()


async def admin(connection: Connection, handler: BaseRouteHandler) -> None:
    await _require(connection, handler, "admin")


async def door(connection: Connection, handler: BaseRouteHandler) -> None:
    """The guard of the whole application: signed in, nothing given twice, and every form one of ours."""
    if not handler.opt.get("public"):
        await _require(connection, handler, "viewer")
    _refuse_repeated(connection, handler.opt.get("repeatable", ()))
    if isinstance(connection, Request) and connection.method not in READS and not is_api(connection.url.path):
        await _check_csrf(connection)


async def _require(connection: Connection, handler: BaseRouteHandler, role: str) -> None:
    user: CurrentUser | None = connection.scope["user"]
    if user is None:
        raise NotAuthorizedException(
            detail="Sign in, or send a valid token as Authorization: Bearer <token>."
        )
    if user.at_least(role):
        return
    database: Database = connection.app.state.engine.database
    what = f"{connection.scope.get('method', 'WS')} {connection.scope['path']}"
    await audit_denied(database, actor(connection), handler.handler_name, "request", what, needs=role)
    raise Denied(role=role, actual=user.role)


def _refuse_repeated(connection: Connection, repeatable: Collection[str]) -> None:
    """`?id=1&id=2` means different things to different readers; a handler names what it takes as a list."""
    query = connection.scope["query_string"].decode("latin-1")
    names = Counter(name for name, _ in parse_qsl(query, keep_blank_values=True))
    twice = [name for name, times in names.items() if times > 1 and name not in repeatable]
    if twice:
        raise HTTPException(
            status_code=422,
            detail="A parameter was given twice.",
            extra=[{"key": name[:80], "message": "is given more than once"} for name in twice],
        )


# Forms


def csrf_token(connection: Connection) -> str:
    """A token for the forms of this answer: good for this session, or before sign-in for this visit, only."""
    nonce = secrets.token_urlsafe(9)
    return f"{nonce}.{sign(_secret_key(connection), 'csrf', f'{nonce} {_csrf_subject(connection)}')}"


async def _check_csrf(request: Request[Any, Any, Any]) -> None:
    given = request.headers.get("x-csrf-token") or (await request.form()).get("_csrf") or ""
    nonce, _, signature = str(given).partition(".")
    subject = _csrf_subject(request, issue=False)
    if not subject or not signed_by_us(_secret_key(request), "csrf", f"{nonce} {subject}", signature):
        raise HTTPException(
            status_code=403, detail="This form is no longer good: reload the page and send it again."
        )


def _csrf_subject(connection: Connection, *, issue: bool = True) -> str | None:
    user: CurrentUser | None = connection.scope["user"]
    if user is not None and user.session_id is not None:
        return f"session {user.session_id}"
    visit = cookie(connection.scope, VISIT) or connection.scope["state"].get("new_visit")
    if visit is None and issue:
        visit = connection.scope["state"]["new_visit"] = secrets.token_urlsafe(24)
    return f"visit {visit}" if visit else None


def _secret_key(connection: Connection) -> str:
    key: str = connection.app.state.engine.settings.secret_key
    return key


# Cookies


def cookie_name(scope: Scope, name: str) -> str:
    secure = scope["litestar_app"].state.rules.is_secure(scope["state"]["peer"])
    return f"__Host-{name}" if secure else name


def cookie(scope: Scope, name: str) -> str | None:
    """One of our cookies, None when it is absent or there are two of that name."""
    wanted, found = cookie_name(scope, name), []
    for header, value in scope["headers"]:
        if header == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, content = part.strip().partition("=")
                if key == wanted:
                    found.append(content)
    return found[0] if len(found) == 1 and found[0] else None


def put_cookie(
    request: Request[Any, Any, Any],
    response: Response[Any],
    name: str,
    value: str,
    *,
    max_age_s: int | None = None,
) -> None:
    """Sets one of our cookies, for this browser session or `max_age_s`; 0 removes it."""
    key = cookie_name(request.scope, name)
    response.set_cookie(
        key, value, max_age=max_age_s, secure=key.startswith("__Host-"), httponly=True, samesite="lax"
    )


# Looking callers up


@dataclass(slots=True)
class _Known:
    """What the database said of a session or token."""

    user: CurrentUser
    asked_at: float
    last_used_at: datetime | None
    expires_at: datetime | None
    token_hash: str


class Authenticator:
    """Finds callers in the database and remembers them for a moment; a message of a change forgets them at once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._known: dict[str, _Known] = {}
        self._changes_heard = 0
        self._marks: set[asyncio.Task[None]] = set()

    async def recognise(self, scope: Scope) -> None:
        """Sets scope["user"]: by bearer token for programs' paths, by cookie for pages; never one for the other."""
        path = scope["path"]
        if path.startswith("/static/") or path in ("/healthz", "/readyz"):
            return
        bearer = _bearer(scope)
        if bearer and (is_api(path) or path.startswith("/schema")):
            scope["user"] = await self.by_token(bearer)
        elif not is_api(path) and (token := cookie(scope, SESSION)):
            scope["user"] = await self.by_session(token)

    async def by_session(self, token: str) -> CurrentUser | None:
        known = await self._look_up(f"session {token_hash(token)}", queries.session_holder)
        if known is None or known.last_used_at is None or known.expires_at is None:
            return None
        now = utc_now()
        if not session_lives(now, known.last_used_at, known.expires_at, None):
            return None
        if now - known.last_used_at > SEEN_EVERY:
            known.last_used_at = now
            self._mark(queries.mark_session(known.token_hash, now))
        return known.user

    async def by_token(self, token: str) -> CurrentUser | None:
        prefix = token_prefix(token)
        if prefix is None:
            return None
        known = await self._look_up(f"token {prefix} {token_hash(token)}", queries.token_holder)
        now = utc_now()
        if known is None or (known.expires_at is not None and known.expires_at <= now):
            return None
        if known.last_used_at is None or now - known.last_used_at > SEEN_EVERY:
            known.last_used_at = now
            self._mark(queries.mark_token(known.token_hash, now))
        return known.user

    async def standing(self, users: Collection[CurrentUser]) -> dict[CurrentUser, CurrentUser | None]:
        """What became of these callers, from one query: the same, another role, or None when they are out."""
        async with self.database.read() as connection:
            return await queries.standing(connection, users, utc_now())

    def hear(self, topic: str, message: Mapping[str, Any]) -> None:
        """From the backplane: somebody's rights changed, or messages of that may have been missed."""
        kinds = {change[0] for change in message.get("changes", ())} if topic == CHANGES else ()
        if topic in (REVOKED, RESYNC) or "user" in kinds:
            self._changes_heard += 1
            self._known.clear()

    async def settle(self) -> None:
        """Waits for the writes beside the requests; the database is about to close."""
        if self._marks:
            await asyncio.wait(self._marks, timeout=2)

    async def _look_up(self, key: str, ask: Any) -> _Known | None:
        known = self._known.get(key)
        if known is not None and time.monotonic() - known.asked_at < REMEMBERED_S:
            return known
        wanted = key.split(" ")[1:]
        asked_at, heard = time.monotonic(), self._changes_heard
        async with self.database.read() as connection:
            row = await ask(connection, *wanted)
        if row is None or not hmac.compare_digest(row.token_hash, wanted[-1]):
            self._known.pop(key, None)
            return None
        user = CurrentUser(
            row.user_id,
            row.name,
            lesser(row.role, row.token_role) if row.token_id else row.role,
            row.auth_version,
            row.session_id,
            row.token_id,
            row.preferences or {},
        )
        known = _Known(user, asked_at, row.last_used_at, row.expires_at, row.token_hash)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        if heard == self._changes_heard:  # else the row may be older than the change
            self._known[key] = known
        return known

    def _mark(self, statement: Any) -> None:
        """Writes that a session or token is in use, beside the request; a database that refuses loses only this."""
        task = asyncio.create_task(self._write(statement), name="auth: mark as seen")
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _write(self, statement: Any) -> None:
        try:
            async with self.database.transaction() as session:
                await session.execute(statement)
        except (DBAPIError, OSError) as error:
            log.warning("could not mark a session as seen", cause=str(error)[:200])


def _bearer(scope: Scope) -> str | None:
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(found) != 1:
        return None
    kind, _, token = found[0].decode("latin-1").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
