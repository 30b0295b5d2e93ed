"""What a rule will do: its next instants, what an edit changes, how full the coming days are. Pure, in bounded time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from worker.schedules import zones
from worker.schedules.cron import Rule
from worker.schedules.words import sentence

DAYS = 7
MOST_COMPARED = 10_000
OFTEN = 300
"""A schedule with more instants a day than this would colour every hour and collide with everybody: it is left out."""
MOST_AT_ALL = 60_000
MOST_COLLISIONS = 12


@dataclass(frozen=True, slots=True)
class Instant:
    """One due instant for people: when, what the clocks there show, what daylight saving does to it."""

    at: datetime
    local: str
    words: str
    note: str


@dataclass(frozen=True, slots=True)
class Preview:
    sentence: str
    next: tuple[Instant, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What an edit changes within the coming week."""

    adds: int
    removes: int
    until: datetime
    """Less than a week ahead when there are too many instants to compare."""
    added: tuple[datetime, ...]
    removed: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Coming:
    """As much of a schedule as the calendar needs."""

    id: UUID
    name: str
    rule: Rule
    since: datetime
    """The first instant that will fire."""


@dataclass(frozen=True, slots=True)
class Collision:
    """A minute in which several schedules are due."""

    at: datetime
    schedules: tuple[Coming, ...]


@dataclass(frozen=True, slots=True)
class Calendar:
    """Runs per bucket of time, and the minutes in which most schedules meet."""

    counts: tuple[int, ...]
    collisions: tuple[Collision, ...]
    frequent: int
    """Schedules that come too often to be counted."""
    left_out: int
    """Schedules that were not looked at: there are too many runs to count."""


def preview(rule: Rule, after: datetime, count: int) -> Preview:
    """The sentence and the next `count` instants later than `after`."""
    return Preview(sentence(rule), tuple(_shown(rule, at) for at in islice(rule.instants(after), count)))


def difference(before: Rule | None, after: Rule | None, now: datetime) -> Difference:
    """The runs that an edit adds and removes within the coming week; None is a schedule that is not due."""
    until = now + timedelta(days=DAYS)
    lists = [[] if rule is None else rule.between(now, until, MOST_COMPARED) for rule in (before, after)]
    for found in lists:
        if len(found) == MOST_COMPARED:
            until = min(until, found[-1])
    old, new = ({at for at in found if at <= until} for found in lists)
    added, removed = sorted(new - old), sorted(old - new)
    return Difference(len(added), len(removed), until, tuple(added[:5]), tuple(removed[:5]))


def calendar(schedules: Sequence[Coming], start: datetime, bucket: timedelta, buckets: int) -> Calendar:
    """How many runs each of `buckets` spans of time from `start` holds."""
    end = start + bucket * buckets
    most = OFTEN * max(1, (end - start) // timedelta(days=1))
    counts = [0] * buckets
    minutes: dict[datetime, list[Coming]] = {}
    left, frequent = MOST_AT_ALL, 0
    for index, one in enumerate(schedules):
        if left <= 0:
            return Calendar(tuple(counts), _collisions(minutes), frequent, len(schedules) - index)
        found = one.rule.between(max(start, one.since) - timedelta(microseconds=1), end, most + 1)
        left -= len(found)
        if len(found) > most:
            frequent += 1
            continue
        found = [at for at in found if at < end]
        for at in found:
            counts[(at - start) // bucket] += 1
        for minute in {at.replace(second=0, microsecond=0) for at in found}:
            minutes.setdefault(minute, []).append(one)
    return Calendar(tuple(counts), _collisions(minutes), frequent, 0)


def heat(counts: Iterable[int]) -> list[int]:
    """A step from 0 to 4 for each count: nothing, then quarters of the fullest."""
    values = list(counts)
    peak = max(values, default=0)
    return [0 if value == 0 else max(1, -(-4 * value // peak)) for value in values]


def _collisions(minutes: dict[datetime, list[Coming]]) -> tuple[Collision, ...]:
    full = Counter({minute: len(found) for minute, found in minutes.items() if len(found) > 1})
    worst = sorted(full, key=lambda minute: (-full[minute], minute))[:MOST_COLLISIONS]
    return tuple(Collision(minute, tuple(minutes[minute])) for minute in worst)


def _shown(rule: Rule, at: datetime) -> Instant:
    local = at.astimezone(zones.zone(rule.time_zone))
    return Instant(at, local.isoformat(timespec="seconds"), f"{local:%a %d %b %Y %H:%M:%S}", rule.note(at))
