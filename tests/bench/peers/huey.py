"""Huey on Redis with ten threads and no results."""

from __future__ import annotations

from huey import RedisHuey

from tests.bench.peers import REDIS, SLOTS
from tests.bench.tally import hit

huey = RedisHuey("bench", url=REDIS, results=False)
noop = send = huey.task(name="noop")(hit)
WORKER = [
    "-m",
    "huey.bin.huey_consumer",
    "tests.bench.peers.huey.huey",
    "-w",
    str(SLOTS),
    "-k",
    "thread",
    "-q",
]


def fill(n: int) -> None:
    for _ in range(n):
        send(0)
