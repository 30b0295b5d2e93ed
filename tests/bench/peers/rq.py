"""RQ on Redis with its SimpleWorker, which does not fork for each job."""

from __future__ import annotations

from redis import Redis
from rq import Queue

from tests.bench.peers import REDIS
from tests.bench.tally import hit

queue = Queue("bench", connection=Redis.from_url(REDIS))
WORKER = ["-m", "rq.cli", "worker", "bench", "--url", REDIS, "-q", "-w", "rq.SimpleWorker"]
BATCH = 500


def send(sent_ns: int) -> None:
    queue.enqueue(hit, sent_ns)


def fill(n: int) -> None:
    for start in range(0, n, BATCH):
        queue.enqueue_many([Queue.prepare_data(hit, (0,)) for _ in range(min(BATCH, n - start))])
