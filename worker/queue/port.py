"""What a transport of doorbells promises, and the queue as a program sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from worker.db.session import Doorbell
from worker.queue.lanes import Lane

SignalHandler = Callable[[dict[str, Any]], Awaitable[None]]
Free = Callable[[Lane], int]
"""How many more jobs of this lane the asker could start at this moment."""
Order = Callable[[], Sequence[Lane]]
"""The lanes in the order in which they are looked at this time."""


class Delivery(Protocol):
    """One doorbell in somebody's hands. Neither answer raises: an unanswered one comes again."""

    job_id: UUID
    lane: Lane

    async def ack(self) -> None:
        """It was heard: it will not come again."""

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it to somebody else, or to me again, after this time."""


class Listener(Protocol):
    """A worker's ear. It never holds more doorbells than its owner could use within about a second."""

    async def take(self) -> list[Delivery]:
        """Waits for doorbells that a slot is free for; the first lanes of the order first. At most one caller."""

    def wake(self) -> None:
        """Slots became free: look again."""

    def add(self, lanes: Sequence[Lane]) -> None:
        """Hears these lanes too."""

    async def close(self) -> None:
        """Gives back what is held; what `take` gave out stays with the caller."""


class Doorbells(Protocol):
    """The transport below the database. At least once, best effort, in no promised order; a message is `{"id": …}`."""

    backend: str

    @property
    def connected(self) -> bool: ...

    async def start(self) -> None:
        """Returns at once: connects in the background and keeps trying for ever."""

    async def stop(self) -> None: ...

    async def ring(self, bells: Sequence[Doorbell]) -> None:
        """Never raises, and gives up when the broker does not answer for a second."""

    def listen(self, lanes: Sequence[Lane], free: Free, order: Order | None = None) -> Listener:
        """Hears these lanes, in this order or in the one that `order` gives each time."""

    async def signal(self, worker_id: UUID, message: dict[str, Any]) -> None:
        """A control message to one worker, like `{"cancel": job id, "epoch": n}`. Never raises; may be lost."""

    def on_signal(self, worker_id: UUID, handler: SignalHandler) -> None: ...

    async def stats(self) -> dict[str, Any]:
        """`backend`, `connected`, and per lane what waits: for people and metrics, not for decisions."""


class JobQueueProtocol(Protocol):
    """The queue as a program that only wants work done sees it."""

    async def enqueue(self, job_name: str, **kwargs: Any) -> str:
        """Accepts a job with these arguments and returns its id; it is safe when this returns.

        Raises:
            UnknownJob: no worker offers it.
            Invalid: arguments that do not fit its signature.
        """

    async def schedule(self, job_name: str, cron: str, **kwargs: Any) -> str:
        """Runs a job with these arguments whenever `cron` is due (UTC); returns the schedule's id.

        Asking for the same again, as programs do at each start, returns the one that is there.

        Raises:
            Invalid: naming the wrong part of the expression, or arguments that do not fit.
        """
