"""Bare Taskiq on NATS, recording nothing, with pulls of a hundred: as shipped it pulls one by one and is half as quick."""

from __future__ import annotations

import asyncio

from taskiq_nats import PullBasedJetStreamBroker

from tests.bench.peers import NATS, SLOTS
from tests.bench.tally import hit

BATCH = 500
broker = PullBasedJetStreamBroker(
    servers=[NATS],
    stream_name="bench",
    subject="bench.jobs",
    durable="bench",
    pull_consume_batch=100,
    pull_consume_timeout=5.0,
)


@broker.task
async def noop(sent_ns: int) -> None:
    hit(sent_ns)


WORKER = [
    "-m", "taskiq", "worker", "tests.bench.peers.taskiq_nats:broker", "--workers", "1",
    "--max-async-tasks", str(SLOTS), "--max-prefetch", "100", "--log-level", "WARNING",
]  # fmt: skip


def fill(n: int) -> None:
    asyncio.run(_fill(n))


async def _fill(n: int) -> None:
    await broker.startup()
    for start in range(0, n, BATCH):
        await asyncio.gather(*(noop.kiq(0) for _ in range(min(BATCH, n - start))))
    await broker.shutdown()
