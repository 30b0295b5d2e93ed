"""Hands no-op jobs to a desk, from a process of its own: `python -m tests.bench.load bulk|single|paced N`.

Its settings come from the environment. Prints how many jobs a second were accepted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

from worker.engine import Engine
from worker.joblogs.actions import enqueue_many
from worker.jobs.registry import Registry
from worker.logs import log_to_stderr
from worker.settings import Settings

BULK = 1000
CALLERS = 50
PACE = 50
"""Jobs a second, for latency at low load."""


async def bulk(engine: Engine, n: int) -> None:
    for start in range(0, n, BULK):
        async with engine.database.transaction() as session:
            await enqueue_many(session, "noop", [{}] * min(BULK, n - start))


async def single(engine: Engine, n: int) -> None:
    """One job at a time by each of some concurrent callers."""

    async def caller(count: int) -> None:
        for _ in range(count):
            await engine.enqueue("noop")

    await asyncio.gather(*(caller(n // CALLERS) for _ in range(CALLERS)))


async def paced(engine: Engine, n: int) -> None:
    begun = time.perf_counter()
    for number in range(n):
        await asyncio.sleep(max(0.0, begun + number / PACE - time.perf_counter()))
        await engine.enqueue("noop", {"sent_ns": time.monotonic_ns()})


async def main(way: str, n: int) -> None:
    log_to_stderr(logging.WARNING)
    settings = Settings.from_env(os.environ)
    async with Engine.create(settings, registry=Registry().discover(settings.job_modules)) as engine:
        begun = time.perf_counter()
        await {"bulk": bulk, "single": single, "paced": paced}[way](engine, n)
        sys.stdout.write(f"{n / (time.perf_counter() - begun):.0f}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
