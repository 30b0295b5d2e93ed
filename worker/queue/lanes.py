"""Lanes: which doorbells travel together, and in which order a worker looks at them. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.db.session import Doorbell
from worker.settings import WORD

RESCUE = "rescue"
BANDS: dict[str, range] = {"high": range(4), "normal": range(4, 7), "low": range(7, 10)}
"""The priorities (0 first, 9 last) that share a lane."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue's doorbells of one band of priorities, or those of its rescued jobs."""

    queue: str
    name: str

    @property
    def rescue(self) -> bool:
        return self.name == RESCUE


@dataclass(frozen=True, slots=True)
class QueueChoice:
    """A queue that a worker takes from. Without weights the first queue goes first, always."""

    name: str
    weight: int | None = None


def parse_queues(text: str) -> tuple[QueueChoice, ...]:
    """`"mail,default"` is strict, in this order; `"mail:3,default"` lets mail go first three times out of four.

    Raises:
        ValueError: a name or weight that is not allowed, or a queue named twice.
    """
    choices = tuple(_choice(part.strip()) for part in text.split(",") if part.strip())
    names = [choice.name for choice in choices]
    if not choices or len(set(names)) != len(names):
        raise ValueError(f"--queues {text!r} must name at least one queue, and each only once")
    return choices


def parse_priorities(text: str) -> tuple[int, int]:
    """`"0-3"` or `"5"`: the first and the last priority that a worker takes.

    Raises:
        ValueError: not a range within 0 and 9.
    """
    if found := re.fullmatch(r"([0-9])(?:-([0-9]))?", text):
        first, last = int(found[1]), int(found[2] or found[1])
        if first <= last:
            return first, last
    raise ValueError(f"--priorities {text!r} must be a range like 0-3 within 0-9")


def lane_of(bell: Doorbell) -> Lane:
    """The lane that a doorbell travels in."""
    if bell.rescue:
        return Lane(bell.queue, RESCUE)
    return Lane(bell.queue, next(name for name, band in BANDS.items() if bell.priority in band))


def lanes_of(queue: str, priorities: tuple[int, int] = (0, 9)) -> list[Lane]:
    """A queue's lanes that hold any of these priorities, the most urgent first."""
    first, last = priorities
    names = [name for name, band in BANDS.items() if band.start <= last and first < band.stop]
    return [Lane(queue, RESCUE), *(Lane(queue, name) for name in names)]


def in_turn(choices: Sequence[QueueChoice], random: Callable[[], float]) -> list[str]:
    """The order in which the queues are looked at this time: as given, or drawn by weight if any queue has one."""
    if all(choice.weight is None for choice in choices):
        return [choice.name for choice in choices]
    # Efraimidis and Spirakis (2006): sorting by u^(1/w) draws without replacement in proportion to the weights.
    drawn = [(random() ** (1 / (choice.weight or 1)), choice.name) for choice in choices]
    return [name for _, name in sorted(drawn, reverse=True)]


def _choice(text: str) -> QueueChoice:
    name, colon, weight = text.partition(":")
    if not WORD.match(name):
        raise ValueError(
            f"queue {name!r} must be a word of a-z, 0-9, _ and - that begins with a letter or digit"
        )
    if colon and not (weight.isdigit() and 1 <= int(weight) <= 1000):
        raise ValueError(f"the weight of queue {name!r} is {weight!r}: it must be a number from 1 to 1000")
    return QueueChoice(name, int(weight) if colon else None)
