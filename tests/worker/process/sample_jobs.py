"""Jobs of a user's own that the process tests run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from taskiq import Context, TaskiqDepends

from worker import JobContext, job


def note(path: str, ctx: JobContext, what: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{what} {ctx.job_id} {ctx.epoch} {os.getpid()}\n")


@job
async def add(a: int, b: int = 1) -> int:
    return a + b


@job(retry=0)
async def mark(ctx: JobContext, path: str, seconds: float = 0.0) -> None:
    note(path, ctx, "start")
    await asyncio.sleep(seconds)
    note(path, ctx, "end")


@job(retry=0)
async def mark_until(ctx: JobContext, path: str, told: str) -> None:
    """Ends when the file `told` is there."""
    note(path, ctx, "start")
    while not Path(told).exists():
        await asyncio.sleep(0.05)
    note(path, ctx, "end")


@job(retry=0)
def mark_in_thread(ctx: JobContext, path: str, seconds: float = 0.0) -> str:
    note(path, ctx, "start")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not ctx.cancelled:
        time.sleep(0.02)
    if ctx.cancelled:
        raise InterruptedError("stopped half way")
    note(path, ctx, "end")
    return "slept"


@job(isolation="process", retry=0)
def mark_in_process(path: str, seconds: float = 0.0) -> str:
    with Path(path).open("a") as file:
        file.write(f"start process {os.getpid()}\n")
    time.sleep(seconds)
    return "slept"


@job(isolation="process", on_lost="fail")
def pay(path: str, seconds: float = 60.0) -> None:
    """Must not run twice."""
    with Path(path).open("a") as file:
        file.write(f"start process {os.getpid()}\n")
    time.sleep(seconds)


@job(isolation="process")
def convert(path: str, how: str = "waits") -> None:
    """Starts a program that takes long, and one that is to outlive it; writes their numbers and waits, dies or ends."""
    long = [sys.executable, "-c", "import time; time.sleep(600)"]
    converter = subprocess.Popen(long)
    daemon = subprocess.Popen(long, start_new_session=True)
    with Path(path).open("a") as file:
        file.write(f"start {os.getpid()} {converter.pid} {daemon.pid}\n")
    if how == "dies":
        os._exit(9)
    if how == "waits":
        converter.wait()


@job(retry=0)
def deaf(ctx: JobContext, path: str, seconds: float) -> None:
    """A thread that never asks whether it should stop."""
    note(path, ctx, "start")
    time.sleep(seconds)


@job(retry=0)
async def die() -> None:
    os._exit(9)


KEPT: list[bytes] = []


@job(retry=0)
async def grow(megabytes: int) -> int:
    """Keeps memory that it never gives back."""
    KEPT.append(b"x" * (megabytes << 20))
    return len(KEPT)


async def message_id(context: Context = TaskiqDepends()) -> str:
    await asyncio.sleep(0)
    return context.message.task_id


@job
async def depends(ctx: JobContext, own: str = TaskiqDepends(message_id, use_cache=False)) -> bool:
    return own == str(ctx.job_id)


@job(queue="other")
async def elsewhere() -> str:
    return "elsewhere"
