"""/api/v1/stream: facts as they are committed, over a WebSocket, for programs and for pages of other programs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from litestar import Request, post, websocket
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from msgspec import Struct

from webapp.api.openapi import documented
from webapp.auth import CurrentUser
from webapp.live.hub import Socket
from webapp.live.service import Live
from webapp.security import Rules, peer
from worker.accounts import tickets
from worker.db.session import Database

TICKET_LENGTHS = range(1, 201)


class StreamTicket(Struct):
    """Opens `/api/v1/stream?token=<ticket>` once, within a minute: for those who cannot send a header, such as browsers."""

    ticket: str
    expires_in_s: int


@post(
    "/stream/ticket",
    status_code=201,
    operation_class=documented(answer={"ticket": "Zm9vYmFyMTI…", "expires_in_s": 60}),
    summary="Make a ticket for the stream",
)
async def make_ticket(request: Request[Any, Any, Any]) -> StreamTicket:
    """The socket has the rights of the token that asks, and ends with it."""
    user: CurrentUser = request.scope["user"]
    async with _database(request).transaction() as session:
        subject = {"name": user.name, "token_id": str(user.token_id)}
        ticket = await tickets.issue(
            session, tickets.STREAM, tickets.STREAM_LIFE, user_id=user.id, subject=subject
        )
    return StreamTicket(ticket, int(tickets.STREAM_LIFE.total_seconds()))


@websocket("/stream", opt={"public": True})
async def stream_socket(socket: Socket) -> None:
    """Send `{"subscribe": ["job.>", "doc.*"]}`; answers are `{"topic": "job.succeeded", "event": {…}}`."""
    _check_origin(socket)
    user = socket.scope["user"] or await _by_ticket(socket)
    if user is None:
        raise NotAuthorizedException(
            detail="Open the stream with a bearer token or a ticket that was not used yet."
        )
    live: Live = socket.app.state.live
    await socket.accept()
    await live.client(socket, user)


routes = [make_ticket, stream_socket]


def _check_origin(socket: Socket) -> None:
    """Programs send none. A page must be of this desk, whatever ticket it has come by."""
    rules: Rules = socket.app.state.rules
    origin = socket.headers.get("origin")
    if origin is not None and origin.lower() != rules.origin(peer(socket)):
        raise PermissionDeniedException(detail="This socket was opened by another site's page.")


async def _by_ticket(socket: Socket) -> CurrentUser | None:
    """Uses the ticket up. The token behind it must still be good."""
    given = socket.query_params.get("token", "")
    if len(given) not in TICKET_LENGTHS:
        return None
    async with _database(socket).transaction() as session:
        ticket = await tickets.consume(session, tickets.STREAM, given)
    if ticket is None or ticket.user_id is None:
        return None
    bearer = CurrentUser(
        ticket.user_id, ticket.subject["name"], "viewer", 0, token_id=UUID(ticket.subject["token_id"])
    )
    live: Live = socket.app.state.live
    return (await live.authenticator.standing([bearer]))[bearer]


def _database(connection: Request[Any, Any, Any] | Socket) -> Database:
    database: Database = connection.app.state.engine.database
    return database
