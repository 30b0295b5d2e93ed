"""The sockets of this process: what each may cost, who writes to it, and when it must end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from webapp.auth import Authenticator, CurrentUser
from webapp.live.waiting import Piece, Waiting
from worker.ending import end

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
    code: int | None = None
    """With what it is to be closed, once that is decided."""
    serial: int = 0
    drop: asyncio.TimerHandle | None = None
    handler: asyncio.Task[Any] | None = None

    def put(self, key: Hashable, piece: Piece) -> None:
        """Sends the piece soon; a piece of the same key that still waits is replaced."""
        if self.code is not None:
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
        """Closes it with this code. What waited is dropped; a reader that is stalled has a while to take the close frame."""
        if self.code is not None:
            return
        self.code = code
        self.waiting.clear()
        self.wake.set()
        if self.handler is not None:
            self.drop = asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self.handler.cancel)


Hear = Callable[[str], None]
"""Gets each message of a socket; it calls `end` on it when it will not hear more."""


class Hub:
    """All sockets of this process, pages and API clients alike."""

    def __init__(self) -> None:
        self.sockets: set[LiveSocket] = set()

    async def serve(self, live: LiveSocket, hear: Hear) -> None:
        """Runs an accepted socket until either side ends it: this task reads, one more writes. Holds no database session."""
        live.handler = asyncio.current_task()
        self.sockets.add(live)
        writer = asyncio.create_task(_write(live), name="live: writer")
        try:
            await _read(live, hear)
        except asyncio.CancelledError:
            if live.code is None:
                raise
        finally:
            self.sockets.discard(live)
            if live.drop is not None:
                live.drop.cancel()
            await end(writer)

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
    """Sends what waits, and at last the close frame; then the reader hears that the socket is gone."""
    try:
        while live.code is None:
            await live.wake.wait()
            live.wake.clear()
            while live.waiting:
                await live.socket.send(
                    {"type": "websocket.send", "bytes": None, "text": live.waiting.frame()}
                )
        await live.socket.close(live.code)
    except (WebSocketDisconnect, OSError):
        log.debug("live_socket_gone")  # uvicorn's ClientDisconnected is an OSError; the reader ends by itself
    except Exception:
        log.exception("live_writer_failed")
        live.end(FAILED)


async def _read(live: LiveSocket, hear: Hear) -> None:
    """Until the other side is gone, or this side has closed."""
    heard, second = 0, time.monotonic()
    while (message := await _receive(live)) is not None:
        if live.code is not None:
            continue
        if (now := time.monotonic()) - second >= 1:
            heard, second = 0, now
        heard += 1
        text = message.get("text") or ""
        if heard > MESSAGES_PER_S or message.get("bytes"):
            live.end(ABUSE)
        elif len(text) > MAX_FRAME_BYTES or len(text.encode()) > MAX_FRAME_BYTES:
            live.end(TOO_BIG)
        else:
            _hear(live, hear, text)


async def _receive(live: LiveSocket) -> Any:
    """The next message; None when there will be none."""
    try:
        message = await live.socket.receive()
    except (WebSocketDisconnect, OSError):
        return None
    return message if message["type"] == "websocket.receive" else None


def _hear(live: LiveSocket, hear: Hear, text: str) -> None:
    try:
        hear(text)
    except Exception:
        log.exception("live_message_failed")
        live.end(FAILED)
