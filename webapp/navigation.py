"""The three numbers in the navigation of every page, asked for at most once a second."""

from __future__ import annotations

from webapp.cached import Cached
from webapp.queries.counters import Counters, counters
from worker.db.session import Database


class NavigationCounters:
    """`latest` is what the last question answered: drawing a page waits for nothing."""

    def __init__(self, database: Database, late_after_s: float) -> None:
        self.latest = Counters("", "", "", 0)
        self._database = database
        self._late_after_s = late_after_s
        self._cached = Cached()

    async def refresh(self) -> None:
        self.latest = await self._cached.get("navigation", 1.0, self._ask)

    async def _ask(self) -> Counters:
        async with self._database.read() as connection:
            return await counters(connection, self._late_after_s)
