"""What becomes of instants that are due: on time, late, missed. Pure: the time is an argument."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from worker.schedules.cron import Rule

Missed = Literal["skip", "latest", "all"]
Overlap = Literal["allow", "skip", "cancel_running"]
MISSED: tuple[Missed, ...] = ("latest", "skip", "all")
OVERLAP: tuple[Overlap, ...] = ("skip", "allow", "cancel_running")

ON_TIME = timedelta(seconds=15)
"""An instant that is at most this old is due, not missed: the death of a process may cost as much."""
AT_ONCE = 200
"""More due instants of one schedule than this wait for the next look, which follows at once."""
KEPT_MISSED = 100
"""Of a long time without a clock, this many missed instants get a row of their own."""
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Due:
    """One instant: `fires`, or is missed. `through` is the last of a row of missed instants that this one stands for."""

    at: datetime
    fires: bool
    through: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, oldest first, and the first instant that is not decided yet."""

    due: tuple[Due, ...]
    next_fire_at: datetime | None


def plan(rule: Rule, next_fire_at: datetime, now: datetime, missed: Missed, catch_up: timedelta) -> Plan:
    """Decides every instant from `next_fire_at` up to `now`, or the first `AT_ONCE` of them that fire."""
    recent, more = _from(rule, max(next_fire_at, now - ON_TIME) - MICROSECOND, now, AT_ONCE)
    late_until = now - ON_TIME - MICROSECOND
    if next_fire_at > late_until:
        return _planned(rule, [Due(at, fires=True) for at in recent], more, now)
    window = max(next_fire_at, now - catch_up)
    if missed == "all":
        return _catching_up(rule, next_fire_at, window, now)
    late = _missed(rule, next_fire_at, late_until)
    if missed == "latest" and late and not recent and late[-1].at >= window:
        late[-1] = Due(late[-1].at, fires=True)
    return _planned(rule, late + [Due(at, fires=True) for at in recent], more, now)


def jitter_s(schedule_id: UUID, fire_at: datetime, longest_s: float) -> float:
    """How much later than its instant the job runs: the same whoever asks, and however often."""
    if longest_s <= 0:
        return 0.0
    seed = hashlib.blake2b(schedule_id.bytes + fire_at.isoformat().encode(), digest_size=8).digest()
    return int.from_bytes(seed, "big") / 2**64 * longest_s


def _planned(rule: Rule, due: list[Due], more: bool, now: datetime) -> Plan:
    after = due[-1].at if more and due else now
    return Plan(tuple(due), rule.next(after))


def _catching_up(rule: Rule, next_fire_at: datetime, window: datetime, now: datetime) -> Plan:
    """All that is within the window fires, in portions; what is older is missed."""
    old = _missed(rule, next_fire_at, window - MICROSECOND) if next_fire_at < window else []
    found, more = _from(rule, window - MICROSECOND, now, AT_ONCE)
    return _planned(rule, old + [Due(at, fires=True) for at in found], more, now)


def _from(rule: Rule, after: datetime, until: datetime, limit: int) -> tuple[list[datetime], bool]:
    found = rule.between(after, until, limit + 1)
    return found[:limit], len(found) > limit


def _missed(rule: Rule, since: datetime, until: datetime) -> list[Due]:
    """The missed instants from `since` to `until`: the newest each, all older ones as one."""
    newest: list[datetime] = []
    for at in rule.instants_back(until + MICROSECOND):
        if at < since:
            break
        if len(newest) > KEPT_MISSED:
            return [Due(since, fires=False, through=at), *(Due(one, fires=False) for one in reversed(newest))]
        newest.append(at)
    return [Due(one, fires=False) for one in reversed(newest)]
