"""EventBusProtocol: events for whoever subscribed, in this process or another, now or later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from worker.events.types import BaseEvent

Handler = Callable[[BaseEvent], Awaitable[None]]
"""Gets one event at a time. What it raises makes the bus hand the message over again."""

KEPT_FOR: Final = timedelta(days=7)
ACK_WAIT_S: Final = 30.0
"""How long a subscriber may be silent with a message before another of its name gets it."""
MAX_DELIVERIES: Final = 20
"""After so many failures a message is given up, and that is logged as an error."""
MAX_MESSAGE_BYTES: Final = 256 * 1024
LONGEST_DELAY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    """Events of one type on their way, as a JSON array. The same `message_id` again within two minutes is dropped."""

    topic: str
    data: bytes
    message_id: str = ""
    recorded: bool = False
    """Whether the outbox has its events already: the relay sends such, everybody else foreign ones."""


class Subscription(Protocol):
    """What `subscribe` gave. It lives over outages of the broker until it is stopped."""

    async def stop(self) -> None:
        """Ends it. A handler under way is cancelled, and its message is handed to another of the same name."""
        ...


class EventBusProtocol(Protocol):
    """Carries events at least once to every subscriber; order is not promised. Messages are kept for seven days.

    The outbox is the truth and this is its copy: a bus that lost everything is filled again from there.
    """

    @property
    def backend(self) -> str:
        """`nats`, `redis` or `memory`."""
        ...

    @property
    def connected(self) -> bool: ...

    async def start(self) -> None:
        """Opens nothing yet: a process that neither publishes nor subscribes needs no connection."""
        ...

    async def stop(self) -> None:
        """Stops every subscription of this process and closes the connection."""
        ...

    async def publish(self, topic: str, event: BaseEvent | Sequence[BaseEvent]) -> None:
        """Returns when the broker has stored it. `topic` is words joined by dots: the events' type.

        Raises:
            BusAway: the broker did not confirm it. It may have stored it all the same.
            Invalid: the topic is none.
        """
        ...

    async def publish_many(self, messages: Sequence[Message]) -> None:
        """As `publish`, many at once. When it raises, any of them may be stored."""
        ...

    async def subscribe(
        self,
        pattern: str,
        handler: Handler,
        *,
        durable: str | None = None,
        since: datetime | None = None,
        foreign: bool = False,
    ) -> Subscription:
        """Hands every event whose topic matches `pattern` (`doc.*`, `job.>`) to `handler`, one after the other.

        Without `since` from now on; with it, also what the bus kept since then. With a `durable` name (a word) the
        broker remembers the place: what was published while nobody of that name was there comes later, of several
        with the name each message reaches one, and what a process that died had not finished reaches another.
        The name keeps its place: `since` counts only when it is new. Handlers drop repeats by `event_id`.
        With `foreign` only what did not come from the outbox is handed over.

        Raises:
            Invalid: the pattern or the name is none.
        """
        ...

    async def born(self) -> datetime:
        """Since when the broker has kept messages. What was published before is not there any more.

        Raises:
            BusAway: the broker does not answer.
        """
        ...

    async def stats(self) -> dict[str, Any]:
        """For people: `backend`, `connected`, and what the broker tells of the stream. It does not raise."""
        ...
