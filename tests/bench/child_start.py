"""How long a worker is without a child that was killed, and what the successor's start costs.

    python -m tests.bench.child_start [kills] [sqlite|postgresql]

One `m worker` with one worker child, a real NATS, an idle system. Prints p50 and p95 of the seconds from SIGKILL to the successor's
row, and the processor time that the supervisor and all below it took for one replacement.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.figures import quantile
from tests.chaos.site import Site
from tests.desk import Process
from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from worker.process.models import Worker

QUIET_S = 2.0
"""After a kill: what the start still has to do, counted in its cost."""


async def main(kills: int, database: str) -> None:
    with tempfile.TemporaryDirectory(prefix="m-start-") as folder:
        nats, postgres = NatsServer(), PostgresServer()
        nats.start()
        url = f"sqlite+aiosqlite:///{folder}/desk.db"
        if database == "postgresql":
            postgres.start()
            url = postgres.database()
        try:
            async with Site(Path(folder), url, nats) as site:
                host = site.host()
                await site.ready(workers=1, clerks=1)
                await asyncio.sleep(QUIET_S)
                idle = await cost(site, host, asyncio.sleep(QUIET_S))
                times, costs = [], []
                for _ in range(kills):
                    costs.append(await cost(site, host, killed(site, host, times)))
        finally:
            nats.close()
            if database == "postgresql":
                postgres.close()
    print(
        f"{database}: {kills} kills, successor known after p50 {quantile(times, 0.5):.2f}, p95 {quantile(times, 0.95):.2f} s;"
        f" processor time a kill p50 {quantile(costs, 0.5):.2f} s, of {idle:.2f} s idle"
    )


async def killed(site: Site, host: Process, times: list[float]) -> None:
    """One kill, after a job: a child that finished none is replaced ever more slowly. The time until another is known goes to `times`."""
    await site.engine.enqueue("work", {"ms": 1})
    await site.settled(30)
    await asyncio.sleep(0.2)
    [victim] = site.children("worker", host)
    os.kill(victim, signal.SIGKILL)
    begun = time.monotonic()

    async def succeeded() -> bool:
        rows = await site.rows(Worker, Worker.kind == "worker", Worker.ended_at.is_(None))
        return any(row.pid != victim for row in rows)

    await site.until(succeeded, what="the successor")
    times.append(time.monotonic() - begun)
    await asyncio.sleep(QUIET_S)


async def cost(site: Site, host: Process, work) -> float:
    """Processor seconds of the host's processes while `work` runs: of those that live, and of those that were waited for."""
    before = spent(site.tree(host))
    await work
    return spent(site.tree(host)) - before


def spent(pids: list[int]) -> float:
    """The first pid is the parent: it also counts its children that have ended."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    asyncio.run(main(int((sys.argv[1:] or ["15"])[0]), (sys.argv[2:] or ["sqlite"])[0]))
