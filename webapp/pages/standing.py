"""Tells every process that somebody's rights changed, this one before the next page is read."""

from __future__ import annotations

from uuid import UUID

from webapp.auth import Authenticator
from webapp.pages.shared import AnyRequest, engine
from worker.live.port import REVOKED


async def tell(request: AnyRequest, user_id: UUID | None) -> None:
    """What is remembered of this person (None: of everybody) is forgotten; their sockets are looked at again."""
    message = {"user_id": str(user_id)} if user_id else {}
    authenticator: Authenticator = request.app.state.authenticator
    authenticator.hear(REVOKED, message)
    await engine(request).socket.broadcast(REVOKED, message)
