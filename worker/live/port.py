"""SocketProtocol: the backplane between all processes and the WebSockets of every web process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

Message = dict[str, Any]
Handler = Callable[[str, Message], None]
"""Gets (topic, message) in the event loop of the process that subscribed. It must return at once."""

CHANGES: Final = "changes"
"""{"changes": [[kind, key, rev], ...], "outbox": [outbox row id, ...]}: what was committed. Readers re-read the rows."""

REVOKED: Final = "revoked"
"""{"user_id": id}: this person's rights changed; sockets check theirs at once."""

RESYNC: Final = "resync"
"""{}: messages may have been missed; re-read everything that is shown."""


class SocketProtocol(Protocol):
    """Names what changed to all processes, at most once, in no promised order: whoever listens also re-reads now and then.

    A handler sees every message of every process, its own included, the own ones at once and also while the broker is
    away. After an outage, and whenever messages were dropped, it gets RESYNC. Nothing here raises or waits for a broker.
    """

    @property
    def connected(self) -> bool:
        """Whether messages reach the other processes now. Without it a reader must ask the database by itself."""
        ...

    async def start(self) -> None:
        """Returns after a second at most; a broker that is not there yet is waited for in the background."""
        ...

    async def stop(self) -> None: ...

    async def broadcast(self, topic: str, message: Message) -> None:
        """Tells every process. `topic` is words joined by dots, `message` a JSON object of at most some 500 KB."""
        ...

    async def send_to_user(self, user_id: str, message: Message) -> None:
        """Tells every process that may hold a socket of this user: `broadcast` on the topic `user.<id>`."""
        ...

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Hands every message to `handler` from now on; returns how to end that."""
        ...


def user_topic(user_id: str) -> str:
    return f"user.{user_id}"
