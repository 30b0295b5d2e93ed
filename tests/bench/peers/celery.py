"""Celery on Redis with ten threads and no results: its quickest pool for jobs that do nothing."""

from __future__ import annotations

from celery import Celery

from tests.bench.peers import REDIS, SLOTS
from tests.bench.tally import hit

app = Celery("bench", broker=REDIS)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
noop = app.task(name="noop")(hit)
send = noop.delay
WORKER = [
    "-m", "celery", "-A", "tests.bench.peers.celery", "worker", "-P", "threads", "-c", str(SLOTS), "--loglevel", "WARNING",
]  # fmt: skip


def fill(n: int) -> None:
    for _ in range(n):
        send(0)
