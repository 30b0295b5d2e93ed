"""arq on Redis with ten slots, asking every 10 ms instead of every half second."""

from __future__ import annotations

import asyncio
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from tests.bench.peers import REDIS, SLOTS
from tests.bench.tally import hit

BATCH = 50


async def noop(ctx: dict[str, Any], sent_ns: int) -> None:
    hit(sent_ns)


class WorkerSettings:
    """Read by `python -m arq`."""

    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(REDIS) if REDIS else RedisSettings()
    max_jobs = SLOTS
    poll_delay = 0.01


WORKER = ["-m", "arq", "tests.bench.peers.arq.WorkerSettings"]


def fill(n: int) -> None:
    asyncio.run(_fill(n))


async def _fill(n: int) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    for start in range(0, n, BATCH):
        await asyncio.gather(*(pool.enqueue_job("noop", 0) for _ in range(min(BATCH, n - start))))
    await pool.aclose()
