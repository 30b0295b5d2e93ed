"""When the next tick may run: soon on an idle desk, ten times a second on a busy one. Pure: clocks are arguments."""

from __future__ import annotations

_AT_ONCE_S = 1e-4


class Pace:
    """Ticks take at most half of the process's time: what changes thicker than that is collected.

    After a silence the first change waits for `gather_s`, which nobody sees: what a click sets off has mostly ended by then, and one
    picture of it in place of three leaves the processor to the job. A quiet desk has also saved a little of its half, so whatever
    follows goes at once. No page waits longer than `longest_s` for the next tick, however busy the process is.
    """

    def __init__(
        self,
        shortest_s: float = 0.015,
        longest_s: float = 0.1,
        share: float = 1 / 2,
        saved_s: float = 0.1,
        gather_s: float = 0.05,
        quiet_s: float = 0.25,
    ) -> None:
        self.shortest_s = shortest_s
        self.longest_s = longest_s
        self.share = share
        self.saved_s = saved_s
        """Of this thread's CPU, at most."""
        self.gather_s = gather_s
        self.quiet_s = quiet_s
        """So long after a tick it is silent."""
        self._last = float("-inf")
        self._cpu = 0.0
        self._credit_s = saved_s

    def wait_s(self, now: float, cpu: float, *, asked: bool = False) -> float:
        """Seconds until the next tick may run; 0 when it may run now. `cpu` is what this thread has used so far.

        Call it when there is something to do. A page that has `asked` is not kept waiting for more.
        """
        if now - self._last > self.quiet_s:
            return 0.0 if asked else self.gather_s
        over_s = (cpu - self._cpu) - self._credit_s
        interval = min(self.longest_s, max(self.shortest_s, over_s / self.share))
        wait = self._last + interval - now
        return wait if wait > _AT_ONCE_S else 0.0

    def ran(self, now: float, cpu: float) -> None:
        """A tick begins."""
        if self._last > float("-inf"):
            earned_s = (now - self._last) * self.share - (cpu - self._cpu)
            self._credit_s = max(0.0, min(self.saved_s, self._credit_s + earned_s))
        self._last, self._cpu = now, cpu
