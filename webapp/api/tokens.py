"""/api/v1/tokens: keys for programs."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from litestar import Request, delete, get, post
from msgspec import Meta, Struct

from webapp.api import examples, strict
from webapp.api.jobs import database
from webapp.api.openapi import documented
from webapp.api.schema import ROLE, RUN_AT, Instant, Key, Role, When, exact, instant
from webapp.auth import actor, admin
from worker.accounts import actions
from worker.accounts.models import ApiToken, User
from worker.db.base import utc_now
from worker.errors import Invalid

AnyRequest = Request[Any, Any, Any]


class Token(Struct, omit_defaults=True):
    """What is known of a token. `token` itself stands only in the answer that made it."""

    token_id: str
    name: str
    role: Role
    owner: Annotated[str, Meta(description="the service account or person whose right it is at most")]
    created_at: Instant
    expires_at: Instant | None
    last_used_at: Instant | None
    revoked_at: Instant | None
    token: str = ""


class Tokens(Struct):
    items: list[Token]


class TokenRequest(Struct):
    """A token for a program; it belongs to the service account of that name, which is made when it is missing."""

    name: Annotated[Key, Meta(description="a text of 1 to 200 characters")]
    role: Annotated[Role, Meta(description=ROLE)] = "operator"
    expires_at: Annotated[When | None, Meta(description=RUN_AT)] = None


@get(
    "/tokens",
    guards=[admin],
    operation_class=documented(answer={"items": [examples.TOKEN]}),
    summary="List tokens",
)
async def list_tokens(request: AnyRequest) -> Tokens:
    """Every token, newest first, the revoked ones too."""
    return Tokens(await _tokens(request))


@post(
    "/tokens",
    guards=[admin],
    status_code=201,
    operation_class=documented(
        body=TokenRequest,
        example={"name": "ci", "role": "operator"},
        answer=examples.TOKEN | {"token": "mdesk_Zm9vYmFyMTI_…"},
    ),
    summary="Make a token",
)
async def add_token(request: AnyRequest) -> Token:
    """The answer holds the token; nothing shows it again."""
    wish = await strict.body(request, TokenRequest)
    if wish.expires_at is not None and wish.expires_at <= utc_now():
        raise Invalid({"expires_at": f"{exact(wish.expires_at)} is not allowed; it must be in the future"})
    async with database(request).transaction() as session:
        made = await actions.add_token(
            session, wish.name, role=wish.role, actor=actor(request), expires_at=wish.expires_at
        )
    [token] = await _tokens(request, made.token_id)
    token.token = made.token
    return token


@delete(
    "/tokens/{token_id:uuid}",
    guards=[admin],
    operation_class=documented(answer=None, problems=(404,)),
    summary="Revoke a token",
)
async def revoke_token(request: AnyRequest, token_id: UUID) -> None:
    """It answers 401 everywhere within two seconds."""
    async with database(request).transaction() as session:
        await actions.revoke_token(session, token_id, actor=actor(request))


routes = [list_tokens, add_token, revoke_token]


async def _tokens(request: AnyRequest, token_id: UUID | None = None) -> list[Token]:
    statement = (
        sa.select(ApiToken.__table__, User.name.label("owner"))
        .join(User, User.id == ApiToken.user_id)
        .order_by(ApiToken.id.desc())
    )
    if token_id is not None:
        statement = statement.where(ApiToken.id == token_id)
    async with database(request).read() as connection:
        return [_token(row) for row in (await connection.execute(statement)).mappings()]


def _token(row: sa.RowMapping) -> Token:
    return Token(
        token_id=str(row["id"]),
        name=row["name"],
        role=row["role"],
        owner=row["owner"],
        created_at=exact(row["created_at"]),
        expires_at=instant(row["expires_at"]),
        last_used_at=instant(row["last_used_at"]),
        revoked_at=instant(row["revoked_at"]),
    )
