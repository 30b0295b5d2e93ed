"""Local times of IANA zones as instants: where clocks are set forward or back, and what that does to a local time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Files beside the zones that mean something else on every machine."""
LAST_YEAR = 9990


@dataclass(frozen=True, slots=True)
class Change:
    """The instant from which a zone's clocks show another offset from UTC."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def gap(self) -> tuple[datetime, datetime]:
        """The local times that do not exist, from the first to the one after the last; empty when set back."""
        return _wall(self.at, self.before), _wall(self.at, max(self.before, self.after))

    @property
    def fold(self) -> tuple[datetime, datetime]:
        """The local times that come twice; empty when set forward."""
        return _wall(self.at, min(self.before, self.after)), _wall(self.at, self.before)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a zone's offset from UTC does not change; `until` is not part of it."""

    since: datetime
    until: datetime
    offset: timedelta


def zone(name: str) -> ZoneInfo:
    """The zone of this IANA name. Raises ValueError when there is none."""
    try:
        return ZoneInfo("" if name in NOT_ZONES else name)
    except (KeyError, ValueError, OSError, TypeError):  # not found, malformed, a folder, not text
        raise ValueError(f"{str(name)[:80]!r} is not an IANA time zone like Europe/Warsaw") from None


def wall(name: str, at: datetime) -> datetime:
    """What the clocks show at this instant, without a zone."""
    return at.astimezone(zone(name)).replace(tzinfo=None)


def instant(name: str, local: datetime) -> datetime:
    """When the clocks show `local`: the first time if it comes twice; the end of the gap if it does not come at all."""
    at = local.replace(tzinfo=zone(name), fold=0).astimezone(UTC)
    if wall(name, at) == local:
        return at
    return stretch(name, at).since


def stretch(name: str, at: datetime) -> Stretch:
    """The stretch that holds this instant, cut where the years before and after it end."""
    year = at.year
    edges = [
        _start(year - 1),
        *(c.at for y in (year - 1, year, year + 1) for c in changes(name, y)),
        _start(year + 2),
    ]
    for since, until in pairwise(edges):
        if since <= at < until:
            return Stretch(since, until, _offset(name, since))
    raise ValueError(at)


def change_at(name: str, at: datetime) -> Change | None:
    """The change that happens at exactly this instant."""
    return next((change for change in changes(name, at.year) if change.at == at), None)


def fold_of(name: str, local: datetime) -> Change | None:
    """The change that makes this local time come twice."""
    near = {year for day in (-1, 0, 1) for year in [(local + day * DAY).year]}
    for change in (change for year in sorted(near) for change in changes(name, year)):
        if change.fold[0] <= local < change.fold[1]:
            return change
    return None


@lru_cache(maxsize=4096)
def changes(name: str, year: int) -> tuple[Change, ...]:
    """Every change of a zone's offset within a year of UTC, in order."""
    found = []
    at, end = _start(year), _start(year + 1)
    while at < end:
        if _offset(name, at) != _offset(name, min(at + DAY, end)):
            moment = _first_with_another_offset(name, at, min(at + DAY, end))
            if moment < end:
                found.append(Change(moment, _offset(name, at), _offset(name, moment)))
        at += DAY
    first = _start(year)
    if _offset(name, first - timedelta(seconds=1)) != _offset(name, first):
        found.insert(0, Change(first, _offset(name, first - timedelta(seconds=1)), _offset(name, first)))
    return tuple(found)


def _first_with_another_offset(name: str, low: datetime, high: datetime) -> datetime:
    offset = _offset(name, low)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        low, high = (middle, high) if _offset(name, middle) == offset else (low, middle)
    return high


def _offset(name: str, at: datetime) -> timedelta:
    offset = at.astimezone(zone(name)).utcoffset()
    assert offset is not None
    return offset


def _start(year: int) -> datetime:
    return datetime(min(max(year, 2), LAST_YEAR), 1, 1, tzinfo=UTC)


def _wall(at: datetime, offset: timedelta) -> datetime:
    return (at + offset).replace(tzinfo=None)
