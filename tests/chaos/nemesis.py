"""What is done to a site: seeded strikes at workers, clerks, hosts, broker and database, each noted with its time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import SQLAlchemyError

from tests.chaos.site import Site, kill_tree
from tests.desk import Process
from worker.process.models import Worker


@dataclass(slots=True)
class Strike:
    """One thing that was done. `at` and `until` are monotonic; `pids` are the processes that it met."""

    kind: str
    at: float
    pids: tuple[int, ...] = ()
    until: float | None = None


class Nemesis:
    """Strikes at `site`. `log` holds every strike; so does the file `strikes` in the site's folder."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.dice = random.Random(seed)
        self.log: list[Strike] = []

    # Workers

    async def kill_worker(self, *, busy_within_s: float = 10.0) -> Strike | None:
        """SIGKILL to a random worker child in the middle of a job, as the OOM killer would; None if none is for so long.

        It is stopped first, so that the job cannot end between the look and the strike.
        """
        end = time.monotonic() + busy_within_s
        while time.monotonic() < end:
            for pid in self.dice.sample(pids := sorted(self.site.children()), len(pids)):
                _send([pid], signal.SIGSTOP)
                if self.site.running_in([pid]):
                    return self._kill("worker", [pid])
                _send([pid], signal.SIGCONT)
            await asyncio.sleep(0.02)
        return None

    async def kill_clerk(self) -> Strike | None:
        """SIGKILL to a clerk that works; one that is still starting does nothing that could be cut."""
        try:
            rows = await self.site.rows(Worker, Worker.kind == "clerk", Worker.ended_at.is_(None))
        except (SQLAlchemyError, OSError):  # the database is struck as well
            return None
        known = {row.pid for row in rows}
        clerks = [pid for pid in self.site.children("clerk") if pid in known]
        return self._kill("clerk", clerks) if clerks else None

    async def kill_host(self, *, back_after_s: float = 0.5, **options: int) -> Strike:
        """A supervisor and all its children at once; another one is started in its place."""
        host = self.dice.choice(self.site.hosts)
        strike = self._strike("host", self.site.children("worker", host))
        self.site.forget(host)
        kill_tree(host)
        await asyncio.sleep(back_after_s)
        self.site.host(**options)
        return self._over(strike)

    async def kill_supervisor(self, *, back_after_s: float = 0.5, **options: int) -> Strike:
        """The parent alone: its children have to notice and go."""
        host = self.dice.choice(self.site.hosts)
        strike = self._strike("supervisor", self.site.children("worker", host))
        self.site.forget(host)
        host.kill()
        await asyncio.sleep(back_after_s)
        self.site.host(**options)
        return self._over(strike)

    def freeze(self, pids: Iterable[int]) -> Strike:
        """SIGSTOP until `thaw`: a suspended machine, a stalled disk, a host cut off from the database."""
        strike = self._strike("freeze", pids)
        _send(strike.pids, signal.SIGSTOP)
        return strike

    def thaw(self, strike: Strike) -> None:
        """SIGCONT."""
        _send(strike.pids, signal.SIGCONT)
        self._over(strike)

    async def stop_host(self, host: Process, *, timeout_s: float = 60) -> int:
        """SIGTERM, as a deploy sends it; answers the exit code."""
        strike = self._strike("sigterm", self.site.children("worker", host))
        self.site.forget(host)
        code = await self.site.do(lambda: host.stop(timeout_s))
        self._over(strike)
        return code

    async def roll_host(self, host: Process, *, timeout_s: float = 60) -> Strike:
        """SIGHUP: returns when every child has been replaced."""
        old = {*self.site.children("worker", host), *self.site.children("clerk", host)}
        strike = self._strike("sighup", old)
        os.kill(host.pid, signal.SIGHUP)

        async def replaced() -> bool:
            now = {*self.site.children("worker", host), *self.site.children("clerk", host)}
            return len(now) >= len(old) and not now & old

        await self.site.until(replaced, timeout_s, "a rolling restart")
        return self._over(strike)

    # Servers

    async def kill_broker(self, down_s: float) -> Strike:
        """SIGKILL to nats-server; back on the same port and store."""
        strike = self._strike("broker")
        await self.site.do(self.site.nats.kill)
        await asyncio.sleep(down_s)
        await self.site.do(self.site.nats.start)
        return self._over(strike)

    async def crash_database(self, down_s: float) -> Strike:
        """PostgreSQL as by `pg_ctl stop -m immediate`: it comes back by recovering from its log."""
        assert self.site.postgres is not None
        strike = self._strike("database")
        await self.site.do(self.site.postgres.kill)
        await asyncio.sleep(down_s)
        await self.site.do(self.site.postgres.start)
        return self._over(strike)

    async def lock_database(self, for_s: float) -> Strike:
        """SQLite: somebody else holds the write lock."""
        path = make_url(self.site.engine.settings.database_url).database
        assert self.site.dialect == "sqlite"
        assert path is not None
        strike = self._strike("lock")
        await self.site.do(lambda: _hold_lock(Path(path), for_s))
        return self._over(strike)

    # Storms

    async def rage(self, plan: Iterable[tuple[float, Callable[[], Awaitable[object]]]]) -> None:
        """Carries out strikes at their seconds from now; one that lasts does not hold up the next."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for at_s, strike in sorted(plan, key=lambda each: each[0]):
                await asyncio.sleep(max(0.0, started + at_s - time.monotonic()))
                tasks.create_task(_awaited(strike))

    async def again_and_again(
        self, pause_s: float, strike: Callable[[], Awaitable[object]], first_after_s: float = 0.0
    ) -> None:
        """The same strike until cancelled, a little off the beat."""
        await asyncio.sleep(first_after_s)
        while True:
            await strike()
            await asyncio.sleep(pause_s * self.dice.uniform(0.6, 1.4))

    def spread(
        self, times: int, until_s: float, strike: Callable[[], Awaitable[object]]
    ) -> list[tuple[float, Callable[[], Awaitable[object]]]]:
        """The same strike so many times, one in each equal part of the time."""
        part = until_s / max(1, times)
        return [((n + self.dice.uniform(0.2, 0.8)) * part, strike) for n in range(times)]

    # Noting

    def _kill(self, kind: str, candidates: list[int]) -> Strike:
        if not candidates:
            return Strike(kind, time.monotonic())
        strike = self._strike(kind, [self.dice.choice(sorted(candidates))])
        _send(strike.pids, signal.SIGKILL)
        return strike

    def _strike(self, kind: str, pids: Iterable[int] = ()) -> Strike:
        self.log.append(strike := Strike(kind, time.monotonic(), tuple(pids)))
        self._note(strike)
        return strike

    def _over(self, strike: Strike) -> Strike:
        strike.until = time.monotonic()
        self._note(strike)
        return strike

    def _note(self, strike: Strike) -> None:
        with (self.site.folder / "strikes").open("a") as file:
            file.write(json.dumps(asdict(strike)) + "\n")


async def _awaited(strike: Callable[[], Awaitable[object]]) -> None:
    await strike()


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _hold_lock(path: Path, for_s: float) -> None:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)  # it waits among many
    try:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(for_s)
        connection.execute("ROLLBACK")
    finally:
        connection.close()
