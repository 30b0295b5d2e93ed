"""Dramatiq on Redis with ten threads."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.bench.peers import REDIS, SLOTS
from tests.bench.tally import hit

dramatiq.set_broker(RedisBroker(url=REDIS))
noop = dramatiq.actor(actor_name="noop")(hit)
send = noop.send
WORKER = ["-m", "dramatiq", "tests.bench.peers.dramatiq", "-p", "1", "-t", str(SLOTS)]


def fill(n: int) -> None:
    for _ in range(n):
        send(0)
