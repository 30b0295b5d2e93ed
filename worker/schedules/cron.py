"""Which instants a cron expression or an interval means: parsed, next and previous, all pure.

Local times that are fixed (the hour is not `*`, `*/n` or every hour) happen once on every day that has them: one that the
clocks skip runs right after the gap, one that comes twice runs the first time. With a wildcard hour the expression
follows elapsed time: it is matched against what the clocks show at every instant that really passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from cronsim import CronSim, CronSimError
from cronsim.cronsim import Field

from worker.errors import Invalid
from worker.schedules import zones

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
EVERY = re.compile(r"every ([1-9][0-9]{0,6}) ?(s|m|h|d)", re.IGNORECASE)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST = 200
SECOND = timedelta(seconds=1)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

FIELDS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
ALLOWED = {
    "second": "0-59, *, */10, 0,30",
    "minute": "0-59, *, */5, 0-29, 0,30",
    "hour": "0-23, *, */2, 8-18, 6,18",
    "day of the month": "1-31, *, */2, 1,15, L (the last), LW (the last weekday)",
    "month": "1-12 or JAN-DEC, *, */3, 6-8",
    "day of the week": "0-7 or SUN-SAT, *, MON-FRI, 5#2 (the second Friday), 5L (the last)",
}
FORMS = (
    "five fields like 0 9 * * MON-FRI (minute, hour, day, month, weekday), six with seconds before them, @daily, "
    "or an interval like every 30s, every 5m, every 2h, every 1d"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """When a schedule is due. Intervals count from `anchor`; nothing is due before `start` or after `end`."""

    expression: str
    time_zone: str = "UTC"
    anchor: datetime = EPOCH
    start: datetime | None = None
    end: datetime | None = None

    @property
    def interval_s(self) -> int | None:
        found = EVERY.fullmatch(self.expression)
        return int(found[1]) * UNITS[found[2].lower()] if found else None

    @property
    def fields(self) -> list[str]:
        """Six fields, seconds first; not for intervals."""
        parts = NAMED.get(self.expression.lower(), self.expression).split()
        return ["0", *parts] if len(parts) == 5 else parts

    @property
    def is_fixed(self) -> bool:
        """Whether it names hours of the day, which then happen once a day however clocks are set."""
        hour = self.fields[2]
        return not hour.startswith("*") and Field.HOUR.parse(hour) != set(range(24))

    def next(self, after: datetime) -> datetime | None:
        """The first due instant later than `after`."""
        return next(self.instants(after), None)

    def previous(self, before: datetime) -> datetime | None:
        """The last due instant earlier than `before`."""
        return next(self.instants_back(before), None)

    def instants(self, after: datetime) -> Iterator[datetime]:
        """Every due instant later than `after`, in order."""
        if self.start is not None and after < self.start:
            after = self.start - SECOND / 1_000_000
        for at in self._forward(after.astimezone(UTC)):
            if self.end is not None and at > self.end:
                return
            yield at

    def instants_back(self, before: datetime) -> Iterator[datetime]:
        """Every due instant earlier than `before`, the last first."""
        if self.end is not None and before > self.end:
            before = self.end + SECOND / 1_000_000
        for at in self._backward(before.astimezone(UTC)):
            if self.start is not None and at < self.start:
                return
            yield at

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """Up to `limit` due instants later than `after` and not later than `until`."""
        found: list[datetime] = []
        for at in islice(self.instants(after), limit):
            if at > until:
                break
            found.append(at)
        return found

    def note(self, at: datetime) -> str:
        """What daylight saving does to this due instant, in words; empty on ordinary days."""
        if self.interval_s is not None:
            return ""
        return _fixed_note(self, at) if self.is_fixed else _elapsed_note(self, at)

    def _forward(self, after: datetime) -> Iterator[datetime]:
        if (interval_s := self.interval_s) is not None:
            return _every(self.anchor, timedelta(seconds=interval_s), after, 1)
        return _fixed(self, after) if self.is_fixed else _elapsed(self, after)

    def _backward(self, before: datetime) -> Iterator[datetime]:
        if (interval_s := self.interval_s) is not None:
            return _every(self.anchor, timedelta(seconds=interval_s), before, -1)
        return _fixed_back(self, before) if self.is_fixed else _elapsed_back(self, before)


def checked_expression(text: str) -> str:
    """The expression in its one spelling. Raises Invalid naming the field that is wrong and what it may be."""
    shown = " ".join(str(text).split())
    if not shown:
        raise Invalid({"cron_expression": f"is needed: {FORMS}"})
    if len(shown) > LONGEST:
        raise Invalid({"cron_expression": f"has {len(shown)} characters; at most {LONGEST} are allowed"})
    if shown.lower() in NAMED:
        return shown.lower()
    if shown.lower().startswith("every"):
        return _checked_interval(shown)
    parts = shown.upper().split(" ")
    if len(parts) not in (5, 6):
        raise Invalid({"cron_expression": f"{shown!r} has {len(parts)} fields; it must be {FORMS}"})
    _check_fields(shown, parts)
    if Rule(" ".join(parts)).next(EPOCH) is None:
        raise Invalid(
            {"cron_expression": f"{shown!r} never comes: no day of the next 50 years has this date"}
        )
    return " ".join(parts)


def checked_zone(name: str) -> str:
    """The zone's name, if it is one. Raises Invalid."""
    try:
        zones.zone(name)
    except ValueError as error:
        raise Invalid({"time_zone": str(error)}) from None
    return name


def _checked_interval(text: str) -> str:
    found = EVERY.fullmatch(text)
    if found is None:
        raise Invalid(
            {
                "cron_expression": f"{text!r} is not an interval: every, a whole number from 1 to 9999999, then s, m, h or d"
            }
        )
    if int(found[1]) * UNITS[found[2].lower()] > 366 * 86_400:
        raise Invalid({"cron_expression": f"{text!r} is longer than a year"})
    return f"every {found[1]}{found[2].lower()}"


def _check_fields(shown: str, parts: list[str]) -> None:
    offset = 6 - len(parts)
    for index, part in enumerate(parts):
        name = FIELDS[index + offset]
        try:
            Field(index + offset).parse(part)
        except (CronSimError, ValueError, TypeError, AssertionError):
            raise Invalid(
                {
                    "cron_expression": f"{shown!r}: the {name} {part!r} is not allowed; it may be {ALLOWED[name]}"
                }
            ) from None
    try:
        CronSim(" ".join(parts), datetime(2026, 1, 1))  # noqa: DTZ001 - local times have no zone
    except (CronSimError, ValueError, TypeError):
        day = FIELDS[3]
        raise Invalid(
            {"cron_expression": f"{shown!r}: no month it names has such a {day}; it may be {ALLOWED[day]}"}
        ) from None


# Intervals


def _every(anchor: datetime, step: timedelta, at: datetime, direction: int) -> Iterator[datetime]:
    passed = (at - anchor) // step
    count = passed + 1 if direction > 0 else passed - ((at - anchor) % step == timedelta(0))
    while True:
        yield anchor + count * step
        count += direction


# Fixed local times: the mapping from local times to instants never goes back, so their order is the instants' order


def _fixed(rule: Rule, after: datetime) -> Iterator[datetime]:
    last = after
    for local in _locals(rule, zones.wall(rule.time_zone, after)):
        at = zones.instant(rule.time_zone, local)
        if at > last:
            last = at
            yield at


def _fixed_back(rule: Rule, before: datetime) -> Iterator[datetime]:
    last = before
    start = zones.wall(rule.time_zone, before)
    if (change := zones.fold_of(rule.time_zone, start)) is not None:
        start = change.fold[1]  # in the second pass of a fold, its later local times have been already
    for local in _locals(rule, start, back=True):
        at = zones.instant(rule.time_zone, local)
        if at < last:
            last = at
            yield at


# Wildcard hours: within a stretch of one offset, local times and instants are the same


def _elapsed(rule: Rule, after: datetime) -> Iterator[datetime]:
    at, slack = after, timedelta(0)
    while at.year < zones.LAST_YEAR:
        here = zones.stretch(rule.time_zone, at)
        local = None
        for local in _locals(rule, _shown(at, here) - slack):
            due = local.replace(tzinfo=UTC) - here.offset
            if due >= here.until:
                break
            yield due
        if local is None:
            return
        at, slack = here.until, SECOND


def _elapsed_back(rule: Rule, before: datetime) -> Iterator[datetime]:
    at = before
    while at.year > 2:
        here = zones.stretch(rule.time_zone, at - SECOND / 1_000_000)
        local = None
        for local in _locals(rule, _shown(at, here), back=True):
            due = local.replace(tzinfo=UTC) - here.offset
            if due < here.since:
                break
            yield due
        if local is None:
            return
        at = here.since


def _shown(at: datetime, here: zones.Stretch) -> datetime:
    return (at + here.offset).replace(tzinfo=None)


def _locals(rule: Rule, local: datetime, *, back: bool = False) -> Iterator[datetime]:
    """The local times that match, later (or earlier) than `local`: cronsim without a zone knows no daylight saving."""
    return iter(CronSim(" ".join(rule.fields), local, reverse=back))


# What the preview says of daylight saving


def _fixed_note(rule: Rule, at: datetime) -> str:
    local = zones.wall(rule.time_zone, at)
    if (change := zones.change_at(rule.time_zone, at)) is not None and change.gap[0] < change.gap[1]:
        skipped = [one for one in islice(_locals(rule, change.gap[0] - SECOND), 1) if one < change.gap[1]]
        if skipped:
            return f"{skipped[0]:%H:%M} does not exist on this day: it runs right after the gap"
    if zones.fold_of(rule.time_zone, local) is not None:
        return f"{local:%H:%M} comes twice on this day: it runs once, the first time"
    return ""


def _elapsed_note(rule: Rule, at: datetime) -> str:
    local = zones.wall(rule.time_zone, at)
    if (fold := zones.fold_of(rule.time_zone, local)) is not None:
        which = "first" if at < fold.at else "second"
        return f"{local:%H:%M} comes twice on this day: this is the {which} time"
    here = zones.stretch(rule.time_zone, at)
    change = zones.change_at(rule.time_zone, here.since)
    if change is not None and change.gap[0] < change.gap[1]:
        before = next(_elapsed_back(rule, at), None)
        if before is not None and before < here.since:
            return f"the clocks skip {change.gap[0]:%H:%M} to {change.gap[1]:%H:%M} before it"
    return ""
