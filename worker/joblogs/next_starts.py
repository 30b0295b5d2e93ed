"""Wakes the next one of a rate-limited job at the instant at which it may start."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from worker.db.session import Database
from worker.joblogs.limits import ring_next

log = structlog.get_logger(__name__)

AT_MOST_EVERY_S = 0.05
"""Starts that follow each other faster are rung together."""
EARLY_S = 0.02
"""A timer of this process may fire this much before the database's clock is there; what is later is another's start."""


class NextStarts:
    """Whoever started the last one rings for the next: one timer for each job, and nothing at all between two starts.

    Who was held back sets no timer: each start is one worker's, so there is one ring and not one from every worker.
    A worker that dies takes its timers along; then the polls of the others find what waits.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._due: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._rings: set[asyncio.Task[None]] = set()

    @property
    def awaited(self) -> list[str]:
        """The jobs that this process will ring for."""
        return list(self._timers)

    def after(self, name: str, seconds: float) -> None:
        """Rings for `name` once so many seconds have passed since the last one of it was started here."""
        loop = asyncio.get_running_loop()
        self._due[name] = loop.time() + seconds
        if name not in self._timers:
            self._timers[name] = loop.call_later(max(AT_MOST_EVERY_S, seconds), self._fire, name)

    async def close(self) -> None:
        """Lets go of what is still to come: from here on this is the others' work."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._rings, return_exceptions=True)

    def _fire(self, name: str) -> None:
        del self._timers[name]
        loop = asyncio.get_running_loop()
        if (left := self._due[name] - loop.time()) > 0:  # another one has started since the timer was set
            self._timers[name] = loop.call_later(left, self._fire, name)
            return
        task = loop.create_task(self._ring(name))
        self._rings.add(task)
        task.add_done_callback(self._rings.discard)

    async def _ring(self, name: str) -> None:
        try:
            left = await ring_next(self._database, name)
        except (SQLAlchemyError, OSError) as error:
            log.warning("The next start was not rung; a poll finds it", job_name=name, error=str(error)[:200])
        else:
            if 0 < left <= EARLY_S:
                self.after(name, left)
