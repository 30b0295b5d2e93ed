"""Real processes on a database and a broker: started, found by their pids, stopped; and an engine to talk to the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tests.chaos import ledger
from tests.desk import Desk, Process
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer
from worker.db.migrate import upgrade
from worker.engine import Engine
from worker.joblogs.models import LIVE, JobLog
from worker.process.models import Worker
from worker.settings import Settings

T = TypeVar("T")
FULL = os.environ.get("CHAOS_SIZE", "short") == "full"
PATIENCE = float(os.environ.get("CHAOS_PATIENCE", "1"))
"""What waits are multiplied by: a mutant that hangs should be found out soon."""
JOBS = "tests.chaos.jobs"
CHILDREN = {"m-worker": "worker", "m-clerk": "clerk"}
"""By the names that they give themselves."""


def on(short: str) -> pytest.MarkDecorator:
    """The database that a scenario runs on in the short set; in the full one it runs on both."""
    names = ["postgresql", "sqlite"] if FULL else [short]
    return pytest.mark.parametrize("any_database", names, indirect=True)


class Site:
    """One desk under fire. Its servers belong to the caller; `own` ones may be killed by a nemesis.

    `environ` is added to the environment of every process.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str,
        nats: NatsServer | ValkeyServer,
        postgres: PostgresServer | None = None,
        **environ: str,
    ) -> None:
        self.folder = folder
        self.nats = nats
        self.postgres = postgres
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self._now = ledger.Now(self.ledger)
        self.hosts: list[Process] = []
        """The supervisors that are meant to run."""
        self.webs: list[Process] = []
        broker = "REDIS_URL" if isinstance(nats, ValkeyServer) else "NATS_URL"
        ours = {
            ledger.VARIABLE: str(self.ledger),
            "M_PREFIX": f"c{uuid4().hex[:8]}",
            broker: nats.url,
            **environ,
        }
        self.desk = Desk(folder / "desk", JOBS, ours, database_url)
        self.engine = Engine.create(Settings.from_env(self.desk.environment()))
        self._hands = ThreadPoolExecutor(4, thread_name_prefix="hands")

    @property
    def dialect(self) -> str:
        return self.engine.database.dialect

    @property
    def token(self) -> str:
        return self.desk.token

    async def __aenter__(self) -> Self:
        await upgrade(self.engine.settings.database_url)
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.desk.processes:
            for pid in (process.pid, *below(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)  # what a nemesis left frozen
        for process in self.desk.processes:
            kill_tree(process)
        await self.engine.stop()
        self._hands.shutdown()

    # Starting

    def host(self, *, processes: int = 1, concurrency: int = 10, **options: str) -> Process:
        """One more `m worker`, as on a host of its own. Options are those of the command: `queues="a,b"`."""
        words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        process = self.desk.worker("--processes", str(processes), "--concurrency", str(concurrency), *words)
        self.hosts.append(process)
        return process

    def forget(self, process: Process) -> None:
        """It is not meant to run any more."""
        self.hosts.remove(process)

    async def web(self) -> Process:
        """One more `m web`, once it is ready. Call it when a worker has advertised the jobs."""
        await self.do(lambda: self.desk.token)
        web = await self.do(self.desk.web)
        self.webs.append(web)
        return web

    async def ready(self, *, workers: int, clerks: int = 0, timeout_s: float = 60.0) -> None:
        """Waits until so many children have made themselves known and live."""

        async def known() -> bool:
            rows = await self.rows(Worker, Worker.ended_at.is_(None), Worker.stopping_at.is_(None))
            kinds = [row.kind for row in rows]
            return kinds.count("worker") >= workers and kinds.count("clerk") >= clerks

        await self.until(known, timeout_s, f"{workers} worker children")

    # Finding

    def children(self, kind: str = "worker", host: Process | None = None) -> list[int]:
        """Pids of the worker children (or clerks) of one host or of all."""
        hosts = [host] if host else self.hosts
        return [pid for each in hosts for pid in below(each.pid) if _kind(pid) == kind]

    def running_in(self, pids: Iterable[int]) -> int:
        """How many jobs these processes are in the middle of, by the ledger."""
        wanted = set(pids)
        return sum(pid in wanted for _, _, pid in self._now.running())

    def tree(self, host: Process) -> list[int]:
        """The supervisor first, then everything below it."""
        return [host.pid, *below(host.pid)]

    async def rows(self, model: Any, *where: Any) -> list[Any]:
        async with self.engine.database.read() as connection:
            return list(await connection.execute(sa.select(model.__table__).where(*where)))

    async def unfinished(self) -> int | None:
        """How many jobs have not ended; None while the database does not answer."""
        try:
            async with self.engine.database.read() as connection:
                return await connection.scalar(
                    sa.select(sa.func.count()).select_from(JobLog).where(JobLog.status.in_(LIVE))
                )
        except (SQLAlchemyError, OSError):
            return None

    def lines(self) -> list[ledger.Line]:
        return ledger.read(self.ledger)

    # Waiting

    async def settled(self, timeout_s: float) -> bool:
        """Waits until every job has ended; answers whether they did."""
        end = time.monotonic() + timeout_s * PATIENCE
        while await self.unfinished() != 0:
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.25)
        return True

    async def until(
        self, done: Callable[[], Awaitable[bool]], timeout_s: float = 30.0, what: str = "it"
    ) -> None:
        end = time.monotonic() + timeout_s
        while not await done():
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout_s:g} s for {what}; the hosts say: {self.last_words()}")
            await asyncio.sleep(0.05)

    async def do(self, work: Callable[[], T]) -> T:
        """Runs something that blocks in a thread that lives as long as the site: servers die with their thread."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, work)

    def last_words(self) -> str:
        return "\n".join(process.output()[-1500:] for process in self.desk.processes)


def below(pid: int) -> list[int]:
    """Every process below this one, from the process table itself: asking `ps` takes longer than a strike may."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((path / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(path.name))
    found, waiting = [], [pid]
    while waiting:
        found += (next_ones := children.get(waiting.pop(), []))
        waiting += next_ones
    return found


def _kind(pid: int) -> str:
    with contextlib.suppress(OSError):
        return CHILDREN.get(Path(f"/proc/{pid}/comm").read_text().strip(), "")
    return ""


def kill_tree(process: Process) -> None:
    """The supervisor and everything below it at the same moment, as when a host loses its power."""
    pids = [process.pid, *below(process.pid)]
    random.shuffle(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.popen.wait()
