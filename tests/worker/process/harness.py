"""A real `m worker` and an engine to talk to it: processes, signals, files as witnesses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import sqlalchemy as sa

from tests.servers.nats import NatsServer
from tests.servers.valkey import ValkeyServer
from worker.accounts.actor import cli_actor
from worker.engine import Engine
from worker.joblogs.models import JobLog
from worker.process import actions
from worker.process.models import Worker
from worker.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 60
SUPERVISOR = """
import json, sys
from worker.errors import DeskError
from worker.process import platform
from worker.process.supervisor import run_supervisor
from worker.settings import Settings
options = json.loads(sys.argv[1])
if not options.pop("forks", True):
    platform.LINUX = False
try:
    sys.exit(run_supervisor(Settings.from_env(), **options))
except DeskError as error:
    print(error, file=sys.stderr)
    sys.exit(78)
"""


def broker_at(server: NatsServer | ValkeyServer) -> dict[str, str]:
    """The variable that makes a desk use this server."""
    return {"NATS_URL" if isinstance(server, NatsServer) else "REDIS_URL": server.url}


class Workers:
    """One `m worker` on a database and a broker, and an engine on the same."""

    def __init__(self, folder: Path, database_url: str, nats_url: str | None = None, **environ: str) -> None:
        self.folder = folder
        self.environ = {
            "DATABASE_URL": database_url,
            "M_HOME": str(folder / "home"),
            "M_JOB_MODULES": "tests.worker.process.sample_jobs",
            "M_PREFIX": f"t{uuid4().hex[:8]}",
            "M_SECRET_KEY": "a key for tests that is long enough to be one",
            **({"NATS_URL": nats_url} if nats_url else {}),
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.engine = Engine.create(Settings.from_env(self.environ))
        self.witness = folder / "witness"
        self.patience_s = WITHIN_S
        self.root = ROOT
        """Where the supervisor finds its code."""

    async def __aenter__(self) -> Self:
        await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        await self.engine.stop()

    async def start(self, children: int = 1, concurrency: int = 10, **options: Any) -> Workers:
        """Starts it and waits until every child is known."""
        import json

        options |= {"processes": children, "concurrency": concurrency}
        environ = {k: v for k, v in os.environ.items() if k not in ("NATS_URL", "REDIS_URL", "DATABASE_URL")}
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, json.dumps(options)],
                cwd=self.root, env={**environ, **self.environ}, stdout=log, stderr=log,
            )  # fmt: skip
        await self.until(self.pids, lambda pids: len(pids) == children)
        return self

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    async def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, WITHIN_S)

    async def enqueue(self, name: str, **args: Any) -> UUID:
        return await self.engine.enqueue(name, args)

    async def rows(self, model: Any, *where: Any) -> list[Any]:
        async with self.engine.database.session() as session:
            return list(await session.scalars(sa.select(model).where(*where)))

    async def pids(self, kind: str = "worker") -> list[int]:
        found = await self.rows(Worker, Worker.kind == kind, Worker.ended_at.is_(None))
        return [row.pid for row in found]

    async def job(self, job_id: UUID, *statuses: str) -> JobLog:
        """The row, once it has one of these statuses (default: an end)."""
        wanted = statuses or ("success", "failed", "cancelled")

        async def look() -> JobLog:
            return (await self.rows(JobLog, JobLog.id == job_id))[0]

        return await self.until(look, lambda row: row.status in wanted)

    async def runs(self) -> UUID:
        """A job that runs until `tell`."""
        job_id = await self.enqueue("mark_until", path=str(self.witness), told=str(self.folder / "told"))
        await self.witness_of("start")
        return job_id

    def tell(self) -> None:
        (self.folder / "told").touch()

    async def jobs(self, *ids: UUID) -> list[JobLog]:
        """Their rows as they are now."""
        rows = {row.id: row for row in await self.rows(JobLog, JobLog.id.in_(ids))}
        return [rows[job_id] for job_id in ids]

    async def living(self) -> list[Worker]:
        return await self.rows(Worker, Worker.kind == "worker", Worker.ended_at.is_(None))

    async def ask(self, wish: actions.Wish) -> None:
        """As an operator asks the only worker."""
        (worker,) = await self.living()
        async with self.engine.database.transaction() as session:
            await actions.ask(session, worker.id, wish, actor=cli_actor())

    async def until(self, look: Callable[[], Any], done: Callable[[Any], bool]) -> Any:
        seen = None
        try:
            async with asyncio.timeout(self.patience_s):
                while not done(seen := await look()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"last seen: {seen!r}; the worker's log:\n{self.log()[-3000:]}") from None
        return seen

    def witnessed(self) -> list[list[str]]:
        """The lines that jobs wrote: what, job id, epoch, pid."""
        return (
            [line.split() for line in self.witness.read_text().splitlines()] if self.witness.exists() else []
        )

    async def witness_of(self, what: str, count: int = 1) -> list[list[str]]:
        async def look() -> list[list[str]]:
            return [line for line in self.witnessed() if line[0] == what]

        return await self.until(look, lambda lines: len(lines) >= count)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
