"""How many jobs a second one process claims: `python -m tests.bench.claims [--jobs 10000] [--limited]`.

By doorbell (batches of ids) and by poll, on a fresh SQLite file and on a PostgreSQL of its own. The claims alone: nothing
runs and nothing finishes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from tests.servers.postgres import PostgresServer
from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.migrate import upgrade
from worker.db.session import Database
from worker.joblogs.claims import Scope, claim_ids, claim_oldest
from worker.joblogs.models import JobLog
from worker.jobs import actions
from worker.jobs.models import JobCatalogue

SCOPE = Scope(("add",), ("default",))
BATCH = 100
ROUNDS = 5


async def fill(database: Database, count: int) -> list[UUID]:
    """Fresh waiting jobs, and nothing else."""
    now = utc_now()
    ids = [new_id() for _ in range(count)]
    async with database.transaction() as session:
        await session.execute(sa.delete(JobLog))
        for start in range(0, count, 500):
            rows = [
                {"id": job_id, "job_name": "add", "queue": "default", "status": "queued", "args": {"a": 1},
                 "tags": [], "enqueued_at": now, "run_at": now}
                for job_id in ids[start : start + 500]
            ]  # fmt: skip
            await session.execute(sa.insert(JobLog), rows)
    return ids


async def prepare(database: Database, *, limited: bool) -> None:
    """The job's row in the catalogue, as a worker would have advertised it."""
    now = utc_now()
    row = {"name": "add", "module": "m", "queue": "default", "first_seen_at": now, "advertised_at": now}
    async with database.transaction() as session:
        await session.execute(sa.insert(JobCatalogue).values(**row))
        if limited:
            await actions.set_queue_limit(session, "default", 100_000, actor=Actor("bench"))


async def by_doorbell(database: Database, ids: list[UUID]) -> int:
    worker_id = new_id()
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    return sum([len(await claim_ids(database, worker_id, SCOPE, batch)) for batch in batches])


async def by_poll(database: Database, ids: list[UUID]) -> int:
    worker_id = new_id()
    polls = [claim_oldest(database, worker_id, SCOPE, "default", BATCH) for _ in ids[::BATCH]]
    return sum([1 for poll in polls async for _ in poll])


async def measure(url: str, count: int, *, limited: bool) -> None:
    await upgrade(url)
    database = Database(url)
    await prepare(database, limited=limited)
    for name, way in (("by doorbell", by_doorbell), ("by poll", by_poll)):
        rates, costs = [], []
        for _ in range(ROUNDS):
            ids = await fill(database, count)
            started, cpu = time.perf_counter(), time.process_time()
            claimed = await way(database, ids)
            rates.append(claimed / (time.perf_counter() - started))
            costs.append((time.process_time() - cpu) / claimed * 1e6)
            assert claimed == count
        rate, cost = statistics.median(rates), statistics.median(costs)
        print(f"{database.dialect:10} {name:12} {rate:8,.0f} claims/s, {cost:4.0f} µs of this process each")
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--limited", action="store_true", help="give the queue a limit that is never reached")
    chosen = parser.parse_args()
    server = PostgresServer()
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for url in (f"sqlite+aiosqlite:///{Path(folder) / 'desk.db'}", server.database()):
                asyncio.run(measure(url, chosen.jobs, limited=chosen.limited))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
