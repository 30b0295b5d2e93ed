"""Bare Taskiq on Redis Streams, recording nothing."""

from __future__ import annotations

import asyncio

from taskiq_redis import RedisStreamBroker

from tests.bench.peers import REDIS, SLOTS
from tests.bench.tally import hit

BATCH = 50
broker = RedisStreamBroker(url=REDIS, max_connection_pool_size=BATCH)


@broker.task
async def noop(sent_ns: int) -> None:
    hit(sent_ns)


WORKER = [
    "-m", "taskiq", "worker", "tests.bench.peers.taskiq_redis:broker", "--workers", "1",
    "--max-async-tasks", str(SLOTS), "--log-level", "WARNING",
]  # fmt: skip


def fill(n: int) -> None:
    asyncio.run(_fill(n))


async def _fill(n: int) -> None:
    await broker.startup()
    for start in range(0, n, BATCH):
        await asyncio.gather(*(noop.kiq(0) for _ in range(min(BATCH, n - start))))
    await broker.shutdown()
