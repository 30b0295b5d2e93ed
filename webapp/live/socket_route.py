"""The route of a page's one WebSocket. The gate in front has already refused every foreign origin."""

from __future__ import annotations

from litestar import websocket

from webapp.auth import CurrentUser
from webapp.live.hub import SIGNED_OUT, Socket
from webapp.live.service import Live


@websocket("/live", opt={"public": True})
async def page_socket(socket: Socket) -> None:
    """Accepts also who is signed out, to close with 4401: a refused handshake would make the page try for ever."""
    live: Live = socket.app.state.live
    user: CurrentUser | None = socket.scope["user"]
    await socket.accept()
    if user is None:
        await socket.close(SIGNED_OUT)
        return
    await live.page(socket, user)


routes = [page_socket]
