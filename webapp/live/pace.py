"""When the next tick may run: at once on an idle desk, ten times a second on a busy one. Pure: clocks are arguments."""

from __future__ import annotations

_AT_ONCE_S = 1e-4


class Pace:
    """Ticks take at most half of the process's time: what changes thicker than that is collected.

    A job's queued, running and done thus reach an idle desk's pages one by one, and no page waits longer than
    `longest_s` for the next tick, however busy the process is.
    """

    def __init__(self, shortest_s: float = 0.015, longest_s: float = 0.1, share: float = 1 / 2) -> None:
        self.shortest_s = shortest_s
        self.longest_s = longest_s
        self.share = share
        self._last = float("-inf")
        self._cpu = 0.0

    def wait_s(self, now: float, cpu: float) -> float:
        """Seconds until the next tick may run; 0 when it may run now. `cpu` is what this thread has used so far."""
        interval = min(self.longest_s, max(self.shortest_s, (cpu - self._cpu) / self.share))
        wait = self._last + interval - now
        return wait if wait > _AT_ONCE_S else 0.0

    def ran(self, now: float, cpu: float) -> None:
        """A tick begins."""
        self._last, self._cpu = now, cpu
