"""ConnectionManager: user id -> the sockets this person has open, and messages to them over all web processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from webapp.live.hub import LiveSocket
from webapp.live.waiting import Piece
from worker.live.port import Message, SocketProtocol

TOPICS = "message."
"""Where broadcasts travel on the backplane, apart from the desk's own topics."""

Wants = Callable[[str], bool]


@dataclass(eq=False)
class ConnectionManager:
    """Messages of the application's own to people. They arrive as `{"topic", "message"}`: facts are `{"topic", "event"}`."""

    socket: SocketProtocol
    connections: dict[str, dict[LiveSocket, Wants]] = field(default_factory=dict)

    def connect(self, user_id: str, live: LiveSocket, wants: Wants = lambda topic: True) -> None:
        """From now on this socket gets what is sent to the user, and the broadcasts whose topic it wants."""
        self.connections.setdefault(user_id, {})[live] = wants

    def disconnect(self, user_id: str, live: LiveSocket) -> None:
        sockets = self.connections.get(user_id, {})
        sockets.pop(live, None)
        if not sockets:
            self.connections.pop(user_id, None)

    async def broadcast(self, topic: str, message: Message) -> None:
        """To every open page and every API client that subscribed to the topic, in every web process."""
        await self.socket.broadcast(TOPICS + topic, message)

    async def send_to_user(self, user_id: str, message: Message) -> None:
        """To every socket of this user, in every web process."""
        await self.socket.send_to_user(user_id, message)

    def hear(self, topic: str, message: Message) -> None:
        """What the backplane brought, for the sockets of this process."""
        if topic.startswith(TOPICS):
            topic = topic.removeprefix(TOPICS)
            _send(self._wanting(topic), topic, message)
        elif topic.startswith("user."):
            _send(iter(tuple(self.connections.get(topic.removeprefix("user."), ()))), "user", message)

    def _wanting(self, topic: str) -> Iterator[LiveSocket]:
        for sockets in tuple(self.connections.values()):
            for live, wants in tuple(sockets.items()):
                if wants(topic):
                    yield live


def _send(sockets: Iterator[LiveSocket], topic: str, message: Message) -> None:
    piece = Piece.of_json(msgspec.json.encode({"topic": topic, "message": message}))
    for live in sockets:
        live.append(piece)
