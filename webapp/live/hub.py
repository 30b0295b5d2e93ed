"""The sockets of this process: what each may cost, who writes to it, and when it must end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from webapp.auth import Authenticator, CurrentUser
from webapp.live.waiting import Piece, Waiting

log = structlog.get_logger(__name__)

SIGNED_OUT: Final = 4401
ABUSE: Final = 1008
TOO_BIG: Final = 1009
FAILED: Final = 1011
TRY_LATER: Final = 1013
GOING_AWAY: Final = 1001

MAX_FRAME_BYTES: Final = 64 * 1024
MESSAGES_PER_S: Final = 1_000
CLOSE_WAIT_S: Final = 10.0
"""How long a reader that does not read may take until its socket is dropped without a close frame."""

Socket = WebSocket[Any, Any, Any]


@dataclass(eq=False, slots=True)
class LiveSocket:
    """One open WebSocket. Everyone puts pieces in; its one writer task sends them; a slow reader costs only its cap."""

    socket: Socket
    user: CurrentUser
    """Who sits there and with what right, as last asked: see `review`."""
    waiting: Waiting = field(default_factory=Waiting)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    serial: int = 0

    def put(self, key: Hashable, piece: Piece) -> None:
        """Sends the piece soon; a piece of the same key that still waits is replaced."""
        if self.ended.done():
            return
        if not self.waiting.put(key, piece):
            self.end(TRY_LATER)
        self.wake.set()

    def append(self, piece: Piece) -> None:
        """Sends the piece after all that waits."""
        self.serial += 1
        self.put(self.serial, piece)

    def tell(self, message: dict[str, Any], key: Hashable = None) -> None:
        """Sends a JSON message; with a key, the latest one of that key."""
        piece = Piece.of_json(msgspec.json.encode(message))
        if key is None:
            self.append(piece)
        else:
            self.put(key, piece)

    def end(self, code: int) -> None:
        """Closes it with this code; what still waited is dropped."""
        if not self.ended.done():
            self.ended.set_result(code)
            self.waiting.clear()


Hear = Callable[[str], None]
"""Gets each message of a socket; it calls `end` on it when it will not hear more."""


class Hub:
    """All sockets of this process, pages and API clients alike."""

    def __init__(self) -> None:
        self.sockets: set[LiveSocket] = set()

    async def serve(self, live: LiveSocket, hear: Hear) -> None:
        """Runs an accepted socket until either side ends it. Holds nothing of the database."""
        self.sockets.add(live)
        tasks = (asyncio.create_task(_write(live)), asyncio.create_task(_read(live, hear)))
        until: tuple[asyncio.Future[Any], ...] = (*tasks, live.ended)
        try:
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.sockets.discard(live)
            gone = await _stop(live, tasks)
        if live.ended.done() and not gone:
            await _close(live)

    async def review(self, authenticator: Authenticator) -> list[LiveSocket]:
        """Ends the sockets whose people may not be there any more; answers those whose rights are others now."""
        users = {live.user for live in self.sockets}
        standing = await authenticator.standing(users) if users else {}
        differing = []
        for live in tuple(self.sockets):
            now = standing.get(live.user, live.user)
            if now is None:
                live.end(SIGNED_OUT)
            elif now != live.user:
                live.user = now
                differing.append(live)
        return differing

    def close_all(self, code: int = GOING_AWAY) -> None:
        for live in tuple(self.sockets):
            live.end(code)


async def _write(live: LiveSocket) -> None:
    while True:
        await live.wake.wait()
        live.wake.clear()
        while live.waiting:
            await live.socket.send_text(live.waiting.frame())


async def _read(live: LiveSocket, hear: Hear) -> None:
    """Until the other side is gone, or this side ends it for what it said."""
    heard, second = 0, time.monotonic()
    while not live.ended.done():
        message = await live.socket.receive()
        if message["type"] != "websocket.receive":
            raise WebSocketDisconnect(detail="the other side is gone")
        if (now := time.monotonic()) - second >= 1:
            heard, second = 0, now
        heard += 1
        text = message.get("text") or ""
        if heard > MESSAGES_PER_S or message.get("bytes"):
            live.end(ABUSE)
        elif len(text) > MAX_FRAME_BYTES or len(text.encode()) > MAX_FRAME_BYTES:
            live.end(TOO_BIG)
        else:
            hear(text)


async def _stop(live: LiveSocket, tasks: Sequence[asyncio.Task[None]]) -> bool:
    """Ends both tasks; True when one of them found the other side gone."""
    for task in tasks:
        task.cancel()
    gone = False
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, (WebSocketDisconnect, OSError)):  # uvicorn's ClientDisconnected is an OSError
            gone = True
        elif isinstance(outcome, Exception):
            log.error("live_socket_failed", exc_info=outcome)
            live.end(FAILED)
    return gone


async def _close(live: LiveSocket) -> None:
    """A reader that is stalled gets some time to take the close frame; then the connection is dropped without one."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, OSError, RuntimeError):
        async with asyncio.timeout(CLOSE_WAIT_S):
            await live.socket.close(live.ended.result())
