"""The tick: what changed, or was asked for, is read once, rendered once per role and sent to every socket that shows it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.hub import LiveSocket
from webapp.live.pace import Pace
from webapp.live.sources import Revs, Source
from webapp.live.watch import Key, Watch, is_news
from worker.db.session import Database

log = structlog.get_logger(__name__)

RETRY_S = 1.0


class AtTick(Protocol):
    """Something else that reads once per tick, on the same connection: the events of the stream."""

    @property
    def due(self) -> bool: ...

    async def tick(self, connection: AsyncConnection) -> None: ...


class Feed:
    """Collects keys between two ticks. A change marks what it makes stale; a page asks whether what it has is current."""

    def __init__(self, database: Database, watch: Watch[LiveSocket], sources: Iterable[Source]) -> None:
        self.database = database
        self.watch = watch
        self.sources = {source.name: source for source in sources}
        self.at_tick: list[AtTick] = []
        self._by_kind: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources.values():
            for kind in source.kinds:
                self._by_kind[kind].append(source)
        self._stale: dict[str, set[str]] = defaultdict(set)
        self._asked: dict[Key, set[str]] = {}
        self._not_before: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._pace = Pace()

    def changed(self, kind: str, keys: set[str]) -> None:
        """These were written and committed. What nobody looks at costs nothing."""
        for source in self._by_kind.get(kind, ()):
            if ids := source.touched(keys, self.watch):
                if source.settle_s and not self._stale[source.name]:
                    self._wait(source.name, source.settle_s)
                self._stale[source.name].update(ids)
                self._wake.set()

    def ask(self, pairs: Iterable[tuple[Key, str]]) -> None:
        """A page says what it shows, and at which revision; it is answered where that is not current."""
        for key, rev in pairs:
            if key.name in self.sources:
                self._asked.setdefault(key, set()).add(rev)
        self._wake.set()

    def ask_all(self) -> None:
        """Messages may have been missed: asks for everything that is shown."""
        for name in self.sources:
            for key in [Key(name, of) for of in self.watch.ids(name)]:
                self.ask((key, rev) for _, rev in self.watch.watchers(key))

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._until_due()
            try:
                await self.tick()
            except (sa.exc.SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("live_tick_failed", error=repr(error))
                await self._recover()
            except Exception:
                log.exception("live_tick_failed")
                await self._recover()

    async def tick(self) -> None:
        """One round over everything that is due."""
        self._wake.clear()
        self._pace.ran(time.monotonic(), time.thread_time())
        asked, self._asked = self._asked, {}
        others = [other for other in self.at_tick if other.due]
        if not (asked or others or self._any_due()):
            return
        async with self.database.read() as connection:
            for other in others:
                await other.tick(connection)
            for name, ids in (await self._behind(connection, asked)).items():
                self._stale[name] |= ids
            for name, ids in self._take_due().items():
                if left := await self.sources[name].send(connection, self.watch, ids):
                    self._stale[name].update(left)
                    self._wake.set()
                await asyncio.sleep(0)  # lets the writers send while the next kind is read and rendered

    def _wait(self, name: str, seconds: float) -> None:
        """Not before that: what is due later anyway stays due then."""
        self._not_before[name] = max(self._not_before.get(name, 0.0), time.monotonic() + seconds)

    async def _recover(self) -> None:
        """What the failed tick had taken is asked for again."""
        await asyncio.sleep(RETRY_S)
        self.ask_all()

    async def _until_due(self) -> None:
        waiting = [self._not_before.get(name, 0.0) for name, ids in self._stale.items() if ids]
        timeout = max(0.0, min(waiting) - time.monotonic()) if waiting else None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        wait_s = self._pace.wait_s(time.monotonic(), time.thread_time(), asked=bool(self._asked))
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _take_due(self) -> defaultdict[str, set[str]]:
        """The stale ids of the sources that may be read now; the others keep theirs."""
        now, due = time.monotonic(), defaultdict[str, set[str]](set)
        for name in [name for name, ids in self._stale.items() if ids]:
            if self._may_run(name, now):
                due[name] = self._stale.pop(name)
        return due

    def _any_due(self) -> bool:
        now = time.monotonic()
        return any(ids and now >= self._not_before.get(name, 0.0) for name, ids in self._stale.items())

    def _may_run(self, name: str, now: float) -> bool:
        every_s = self.sources[name].every_s
        if not every_s:
            return True
        if now < self._not_before.get(name, 0.0):
            return False
        self._not_before[name] = now + every_s
        return True

    async def _behind(self, connection: AsyncConnection, asked: dict[Key, set[str]]) -> dict[str, set[str]]:
        """Which of the asked keys some page shows an old revision of. Those without a cheap answer are read whole."""
        behind: dict[str, set[str]] = defaultdict(set)
        cheap: dict[Revs, set[Key]] = defaultdict(set)
        for key in asked:
            if not self.watch.has(key):
                continue
            revs = self.sources[key.name].revs
            if revs is not None:
                cheap[revs].add(key)
            else:
                self._stale[key.name].add(key.id)
        for revs, keys in cheap.items():
            found = await revs(connection, {key.id for key in keys})
            for key in keys:
                if key.id in found and any(is_news(found[key.id], rev) for rev in asked[key]):
                    behind[key.name].add(key.id)
        return behind
