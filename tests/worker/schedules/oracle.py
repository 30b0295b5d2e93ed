"""What a cron expression means, found by looking at every single minute: slow, plain, and without cronsim."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Spec:
    """An expression as sets of numbers; None is a star. Weekdays count from Sunday, 0."""

    minute: frozenset[int] | None = None
    hour: frozenset[int] | None = None
    day: frozenset[int] | None = None
    month: frozenset[int] | None = None
    weekday: frozenset[int] | None = None

    def expression(self) -> str:
        parts = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join("*" if part is None else ",".join(map(str, sorted(part))) for part in parts)

    @property
    def is_fixed(self) -> bool:
        return self.hour is not None and len(self.hour) < 24

    def matches(self, local: datetime) -> bool:
        if not all(
            wanted is None or value in wanted
            for wanted, value in (
                (self.minute, local.minute),
                (self.hour, local.hour),
                (self.month, local.month),
            )
        ):
            return False
        day = self.day is None or local.day in self.day
        weekday = self.weekday is None or (local.weekday() + 1) % 7 in self.weekday
        return (day or weekday) if self.day is not None and self.weekday is not None else (day and weekday)


class Window:
    """Every minute of a zone between two instants, and the local time that clocks show at each.

    Looks a little beyond both ends: further than any change of the clocks in the years that are tested.
    """

    def __init__(self, zone: str, start: datetime, end: datetime) -> None:
        self.start, self.end = start, end
        info, margin = ZoneInfo(zone), timedelta(hours=4)
        self.minutes: list[tuple[datetime, datetime]] = []
        at = start - margin
        while at <= end + margin:
            self.minutes.append((at, at.astimezone(info).replace(tzinfo=None)))
            at += MINUTE

    def due(self, spec: Spec) -> list[datetime]:
        found = (
            self._fixed(spec) if spec.is_fixed else [at for at, local in self.minutes if spec.matches(local)]
        )
        return sorted({at for at in found if self.start < at <= self.end})

    def _fixed(self, spec: Spec) -> list[datetime]:
        """Each matching local minute once: the first instant that shows it, or the first after the gap that it is in."""
        found = []
        shown: dict[datetime, datetime] = {}
        for at, local in self.minutes:
            shown.setdefault(local, at)
        local, last = self.minutes[0][1], max(shown)
        highest = iter(self.minutes)
        later = next(highest)
        while local <= last:
            if spec.matches(local):
                if local in shown:
                    found.append(shown[local])
                else:
                    while later[1] < local:
                        later = next(highest)
                    found.append(later[0])
            local += MINUTE
        return found


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)
