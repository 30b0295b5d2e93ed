"""Who may send how much now, as pure rules: limits of each webhook, and room shared so that no webhook starves another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

DOUBTFUL_FAILURES: Final = 3
"""So many failures in a row make a webhook doubtful: it shares a smaller room with others like it."""
DOUBTFUL_CONCURRENCY: Final = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """A webhook with deliveries that are due."""

    webhook_id: UUID
    concurrency: int
    rate_per_s: float | None
    sending: int
    """Requests under way, in all couriers."""
    failures: int
    paced_to: datetime | None
    due_at: datetime
    """The oldest that is due."""
    only_tests: bool = False
    """It is off or held back: only test events go out, because somebody waits for them."""
    slow: bool = False
    """Whether a request of it has been under way for long."""

    @property
    def doubtful(self) -> bool:
        return self.slow or self.failures >= DOUBTFUL_FAILURES


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests a courier may still start: for webhooks that answer, and for doubtful ones."""

    sound: int
    doubtful: int


def share(wishes: Sequence[Wish], room: Room, now: datetime) -> dict[UUID, int]:
    """How many deliveries each webhook gets: one in turn, those first that have the fewest under way."""
    given: dict[UUID, int] = {}
    for doubtful, left in ((False, room.sound), (True, room.doubtful)):
        lane = [wish for wish in wishes if wish.doubtful == doubtful]
        allowed = {wish.webhook_id: allowance(wish, now) for wish in lane}
        while left > 0 and (able := [w for w in lane if given.get(w.webhook_id, 0) < allowed[w.webhook_id]]):
            first = min(able, key=lambda w: (w.sending + given.get(w.webhook_id, 0), w.due_at))
            given[first.webhook_id] = given.get(first.webhook_id, 0) + 1
            left -= 1
    return given


def allowance(wish: Wish, now: datetime) -> int:
    """How many requests a webhook may start now by its own limits."""
    at_once = min(wish.concurrency, DOUBTFUL_CONCURRENCY) if wish.doubtful else wish.concurrency
    free = max(0, at_once - wish.sending)
    return free if wish.rate_per_s is None else min(free, paced(wish.paced_to, wish.rate_per_s, now))


def paced(paced_to: datetime | None, rate_per_s: float, now: datetime) -> int:
    """How many requests the rate leaves now; what a quiet second left over may come at once, but no more."""
    return int((now - _from(paced_to, rate_per_s, now)).total_seconds() * rate_per_s + 1e-6)


def pace(paced_to: datetime | None, rate_per_s: float, started: int, now: datetime) -> datetime:
    """Up to when the rate is used up once so many have started."""
    return _from(paced_to, rate_per_s, now) + timedelta(seconds=started / rate_per_s)


def _from(paced_to: datetime | None, rate_per_s: float, now: datetime) -> datetime:
    earliest = now - timedelta(seconds=max(1.0, 1.0 / rate_per_s))
    return earliest if paced_to is None else max(paced_to, earliest)
