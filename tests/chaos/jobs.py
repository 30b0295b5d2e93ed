"""The jobs of the storms. Each notes in the ledger that it began, that its effect happened, how it left."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos import ledger
from worker import JobContext, job
from worker.jobs.retry import RetryPolicy
from worker.queue import receiver

BLIND = {"CHAOS_BLIND": "1"}
"""In the environment of workers: after their start they hear doorbells and never look by themselves."""
if BLIND.items() <= os.environ.items():
    receiver.POLL_S = receiver.POLL_HUNGRY_S = 3600.0

SOON = RetryPolicy(max_retries=3, base_s=0.2, cap_s=1.0)
ONCE = RetryPolicy(max_retries=1, base_s=0.2, cap_s=0.5)


class Planned(Exception):
    """This run was to fail."""


@contextmanager
def told(ctx: JobContext) -> Iterator[None]:
    """Notes the start and how the block was left; `end` stands for an effect that cannot be taken back."""
    _note(ctx, "start")
    try:
        yield
    except (asyncio.CancelledError, InterruptedError):
        _note(ctx, "stopped")
        raise
    except BaseException:
        _note(ctx, "raised")
        raise
    _note(ctx, "end")


def _note(ctx: JobContext, phase: ledger.Phase) -> None:
    ledger.write(phase, str(ctx.job_id), ctx.epoch, ctx.attempt, str(ctx._hold.worker_id))


@job(retry=SOON)
async def work(ctx: JobContext, ms: int) -> int:
    with told(ctx):
        await asyncio.sleep(ms / 1000)
    return ms


@job(retry=SOON)
def work_in_a_thread(ctx: JobContext, ms: int) -> int:
    with told(ctx):
        if ctx.wait_cancelled(ms / 1000):
            raise InterruptedError
    return ms


@job(retry=SOON, isolation="process")
def work_in_a_process(ctx: JobContext, ms: int) -> int:
    with told(ctx):
        time.sleep(ms / 1000)
    return ms


@job(retry=SOON)
async def fails_once(ctx: JobContext, ms: int) -> int:
    with told(ctx):
        await asyncio.sleep(ms / 1000)
        if ctx.attempt == 1:
            raise Planned
    return ms


@job(retry=ONCE)
async def always_fails(ctx: JobContext, ms: int) -> None:
    with told(ctx):
        await asyncio.sleep(ms / 1000)
        raise Planned


@job(retry=SOON)
async def dies(ctx: JobContext, ms: int) -> None:
    """Ends its process each time, and whoever runs in it."""
    with told(ctx):
        await asyncio.sleep(ms / 1000)
        _note(ctx, "died")
        os._exit(9)


@job(retry=SOON)
def crashes(ctx: JobContext, ms: int) -> None:
    """A segmentation fault, as a faulty C extension has it."""
    with told(ctx):
        time.sleep(ms / 1000)
        _note(ctx, "died")
        ctypes.string_at(0)


@job(retry=0)
async def runs_out_of_memory(ctx: JobContext) -> None:
    with told(ctx):
        raise MemoryError("no memory left")


@job(retry=0)
async def recurses(ctx: JobContext) -> int:
    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    with told(ctx):
        return deeper(0)


@job(retry=0)
async def gives_too_much(ctx: JobContext, mb: int) -> str:
    with told(ctx):
        return "x" * (mb * 1_000_000)


@job(retry=0)
async def gives_what_is_no_json(ctx: JobContext) -> Any:
    with told(ctx):
        return object()


@job(retry=0, timeout=120)
async def blocks_the_loop(ctx: JobContext, seconds: float) -> str:
    """What nobody should write: nothing else of its process moves meanwhile."""
    with told(ctx):
        time.sleep(seconds)
    return "blocked"
