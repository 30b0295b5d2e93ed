"""What benchmarks compare: this desk, and other job systems, each with servers of its own, behind the same few verbs.

`desk-postgresql` and `desk-sqlite` are this project on NATS, `desk-postgresql-redis` and `desk-sqlite-redis` on Redis; `taskiq_nats` and `taskiq_redis` are Taskiq bare; others are named with a Python that
has them installed, like `celery@/path/to/python`. The modules of the others are in `tests/bench/peers/`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from tests.desk import ROOT, Desk
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from tests.servers.valkey import ValkeyServer
from worker.db.session import Database
from worker.joblogs.models import JobLog
from worker.process import platform

MODULE = "tests.bench.noop_jobs"


def system(name: str, folder: Path, slots: int) -> System:
    """The system of this name, with its files below `folder`."""
    kind, _, python = name.partition("@")
    if kind.startswith("desk-"):
        return OurDesk(folder, kind.removeprefix("desk-"), slots)
    return Peer(folder, kind, python or sys.executable)


class System(ABC):
    """Its servers run inside the `with` block; so do the workers that were started."""

    servers: list[int]

    def __init__(self, folder: Path) -> None:
        self.stack = ExitStack()
        self.folder = folder
        self.tally = folder / "tally"
        self.tally.mkdir()
        self.servers = []

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def start(self, server: NatsServer | PostgresServer | ValkeyServer) -> None:
        server.start()
        self.stack.callback(server.stop if isinstance(server, ValkeyServer) else server.close)
        assert server.process is not None
        self.servers.append(server.process.pid)

    def worker(self, sleep_s: float = 0.0) -> subprocess.Popen[bytes]:
        """One more worker, whose jobs take so long."""
        environ = {**self.environ(), "BENCH_TALLY": str(self.tally), "BENCH_SLEEP_S": str(sleep_s)}
        with (self.folder / "worker.log").open("ab") as output:
            popen = platform.spawn(self.worker_command(), environ, output)
        self.stack.callback(end, popen)
        return popen

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def environ(self) -> dict[str, str]: ...

    @abstractmethod
    def worker_command(self) -> list[str]: ...

    @abstractmethod
    def fill(self, jobs: int) -> float:
        """Hands in so many jobs in bulk; how many a second were accepted."""

    def recorded(self) -> bool:
        """Whether all that it keeps about jobs that have run is written."""
        return True


class OurDesk(System):
    """M Desk: every job recorded with its whole life, events included."""

    def __init__(self, folder: Path, database: str, slots: int) -> None:
        super().__init__(folder)
        self.database, _, self.broker = database.partition("-")
        self.slots = slots

    def open(self) -> None:
        broker, postgres = ValkeyServer() if self.broker == "redis" else NatsServer(), PostgresServer()
        self.start(broker)
        self.url = f"sqlite+aiosqlite:///{self.folder}/desk.db"
        if self.database == "postgresql":
            self.start(postgres)
            self.url = postgres.database()
        url = {"REDIS_URL" if self.broker == "redis" else "NATS_URL": broker.url}
        self.desk = Desk(self.folder / "home", MODULE, url, database_url=self.url)
        self.desk.upgrade()

    def environ(self) -> dict[str, str]:
        return self.desk.environment()

    def worker_command(self) -> list[str]:
        return self.desk.command("worker", "--processes", "1", "--concurrency", str(self.slots))

    def fill(self, jobs: int) -> float:
        return self.load("bulk", jobs)

    def load(self, way: str, jobs: int) -> float:
        """See `tests.bench.load`."""
        command = [sys.executable, "-m", "tests.bench.load", way, str(jobs)]
        return float(subprocess.check_output(command, env=self.environ(), cwd=ROOT, text=True))

    def recorded(self) -> bool:
        async def unfinished() -> int:
            database = Database(self.url)
            async with database.read() as connection:
                rows = sa.select(sa.func.count()).where(JobLog.status.in_(("queued", "running")))
                count = (await connection.execute(rows)).scalar_one()
            await database.close()
            return int(count)

        return asyncio.run(unfinished()) == 0


class Peer(System):
    """Another system, by its module in `tests/bench/peers/`."""

    def __init__(self, folder: Path, name: str, python: str) -> None:
        super().__init__(folder)
        self.name, self.python = name, python

    def open(self) -> None:
        server = NatsServer() if self.name == "taskiq_nats" else ValkeyServer()
        self.start(server)
        self.server_url = server.url

    def environ(self) -> dict[str, str]:
        urls = {"BENCH_NATS_URL": self.server_url, "BENCH_REDIS_URL": self.server_url}
        return {**os.environ, **urls, "PYTHONPATH": str(ROOT), "BENCH_TALLY": str(self.tally)}

    def worker_command(self) -> list[str]:
        return [self.python, *self.ask("print(*peer.WORKER, sep='\\n')").splitlines()]

    def fill(self, jobs: int) -> float:
        begun = time.perf_counter()
        self.ask(f"peer.fill({jobs})")
        return jobs / (time.perf_counter() - begun)

    def ask(self, code: str) -> str:
        command = [self.python, "-c", f"import tests.bench.peers.{self.name} as peer\n{code}"]
        return subprocess.check_output(command, env=self.environ(), cwd=ROOT, text=True)


def end(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        platform.kill_tree(popen)
    popen.wait()
