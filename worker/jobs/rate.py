"""How often a job may start: GCRA, the leaky bucket as one instant. Pure: the time is an argument."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

MOST_PER_S = 10_000.0
LEAST_PER_S = 1 / 86_400
MOST_BURST = 10_000
UNITS = {"s": ("second", 1), "m": ("minute", 60), "h": ("hour", 3600), "d": ("day", 86_400)}
ALLOWED = "a number of starts and its unit, like 5/s, 30/m, 100/h or 10/d, from 1/d to 10000/s"

_WORDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:/|per|a)\s*(s|m|h|d|second|minute|hour|day)\Z")


class Grant(NamedTuple):
    """What one question to the rule gave."""

    granted: int
    tat: datetime
    """The state to keep: when the bucket is empty again (the theoretical arrival time of GCRA)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` starts at once, and one more every `interval` from then on.

    In every span of time W there are at most `burst + W / interval` starts.
    """

    interval: timedelta
    burst: int = 1

    @classmethod
    def of(cls, per_s: float, burst: int | None = None) -> Rate:
        """Without a burst it is what a tenth of a second brings: fast jobs come in small batches, slow ones singly."""
        return cls(
            timedelta(microseconds=math.ceil(1_000_000 / per_s)), burst or max(1, math.ceil(per_s / 10))
        )

    def take(self, tat: datetime | None, now: datetime, wanted: int) -> Grant:
        """As many of `wanted` as may start now."""
        begins = self._begins(tat, now)
        granted = min(wanted, self._room(begins, now))
        return Grant(granted, begins + granted * self.interval)

    def ready_at(self, tat: datetime | None, now: datetime) -> datetime:
        """The first instant, from `now` on, at which one may start."""
        return max(now, self._begins(tat, now) - self._tolerance)

    def _begins(self, tat: datetime | None, now: datetime) -> datetime:
        """The state as it counts now. No state lies further ahead than a full bucket: a clock that was set back, or a
        rate that was slower before, holds nothing up for longer than the rate itself."""
        if tat is None:
            return now
        return min(max(tat, now), now + self.burst * self.interval)

    def _room(self, begins: datetime, now: datetime) -> int:
        left = now + self._tolerance - begins
        return left // self.interval + 1 if left >= timedelta(0) else 0

    @property
    def _tolerance(self) -> timedelta:
        return (self.burst - 1) * self.interval


def parse_rate(text: str) -> float:
    """`30/m` as starts a second.

    Raises:
        ValueError: it is not a rate, or one outside of what is allowed.
    """
    found = _WORDS.match(text.strip().lower())
    per_s = float(found[1]) / UNITS[found[2][0]][1] if found else 0.0
    if not is_rate(per_s):
        raise ValueError(f"{text[:40]!r} is not allowed: it must be {ALLOWED}")
    return per_s


def is_rate(per_s: float) -> bool:
    """Whether it lies within what is allowed; a hair's breadth beyond the ends is rounding."""
    return LEAST_PER_S * 0.999_999 <= per_s <= MOST_PER_S


def split_rate(per_s: float) -> tuple[float, str]:
    """The number and unit (`s`, `m`, `h`, `d`) that say it best: 0.5 is 30 a minute."""
    for unit, (_, seconds) in UNITS.items():
        number = round(per_s * seconds, 6)
        if abs(number - round(number)) < 1e-4 and round(number) >= 1:
            return float(round(number)), unit
    return round(per_s, 6), "s"


def rate_words(per_s: float) -> str:
    """`30 a minute`."""
    number, unit = split_rate(per_s)
    return f"{number:g} a{'n' if unit == 'h' else ''} {UNITS[unit][0]}"
