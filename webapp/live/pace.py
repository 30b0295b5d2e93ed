"""When the next tick may run: at once after a quiet time, ten times a second under load. Pure: the clock is an argument."""

from __future__ import annotations

_AT_ONCE_S = 1e-4


class Pace:
    """A change goes out at once and may be followed by a few more: a job's queued, running and done on an idle desk.

    What comes thicker is collected and goes out every `interval_s`.
    """

    def __init__(self, interval_s: float = 0.1, burst: int = 5, gap_s: float = 0.005) -> None:
        self.interval_s = interval_s
        self.burst = burst
        self.gap_s = gap_s
        self._credit = float(burst)
        self._last = float("-inf")

    def wait_s(self, now: float) -> float:
        """Seconds until the next tick may run; 0 when it may run now."""
        earned = self._earned(now)
        wait = (1 - earned) * self.interval_s if earned < 1 - 1e-9 else 0.0
        wait = max(wait, self._last + self.gap_s - now)
        return wait if wait > _AT_ONCE_S else 0.0

    def ran(self, now: float) -> None:
        self._credit = max(self._earned(now) - 1, 0.0)
        self._last = now

    def _earned(self, now: float) -> float:
        if self._last == float("-inf"):
            return self._credit
        return min(float(self.burst), self._credit + (now - self._last) / self.interval_s)
