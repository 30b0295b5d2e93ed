"""How many events a second one clerk relays and hands over: `python -m tests.bench.relay [--rows 300] [--events 100]`.

Rows as a busy worker writes them, on a fresh SQLite file and on a PostgreSQL of its own, to a nats-server that syncs each
publication. CPU is that of this process alone and does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.servers.nats import NatsServer
from tests.servers.postgres import PostgresServer
from worker.db.base import new_id
from worker.db.migrate import upgrade
from worker.db.session import Database, emit
from worker.events.nats import NatsEventBusAdapter
from worker.events.relay import Relay
from worker.events.takers import hand_over


async def record(database: Database, rows: int, events: int) -> None:
    for _ in range(rows):
        async with database.transaction() as session:
            for n in range(events):
                data = {
                    "job_id": str(new_id()),
                    "job_name": "add",
                    "queue": "default",
                    "status": "success",
                    "rev": n,
                }
                emit(session, ("job.started", "job.succeeded")[n % 2], data)


async def timed(action: Callable[[], Awaitable[int]], events: int) -> str:
    wall, cpu, done = time.perf_counter(), time.process_time(), 0
    while step := await action():
        done += step
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = done * events
    return f"{total:,} events in {wall:.2f} s, {total / wall:,.0f}/s, {cpu / total * 1e6:.1f} µs CPU each"


async def measure(url: str, server: NatsServer, rows: int, events: int) -> None:
    await upgrade(url)
    database, bus = Database(url), NatsEventBusAdapter(server.url, "bench" + new_id().hex[-8:])
    await record(database, rows, events)
    await bus.born()
    print(f"{database.dialect:>10}  relay      {await timed(Relay(database, bus), events)}")
    print(f"{database.dialect:>10}  hand over  {await timed(lambda: hand_over(database, []), events)}")
    await bus.stop()
    await database.close()


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=300)
    options.add_argument("--events", type=int, default=100)
    given = options.parse_args()
    server, postgres = NatsServer(), PostgresServer()
    server.start()
    postgres.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for url in (f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}", postgres.database()):
                await measure(url, server, given.rows, given.events)
    finally:
        server.close()
        postgres.close()


if __name__ == "__main__":
    asyncio.run(main())
