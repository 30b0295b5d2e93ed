"""Jobs of a user's own, as a shop would write them: outside the project, named in M_JOB_MODULES."""

from __future__ import annotations

import asyncio
import csv
import ctypes
import enum
import hashlib
import logging
import os
import time
import urllib.request
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

from worker import Discard, JobContext, Retry, Secret, job

log = logging.getLogger("shop")


class Size(enum.Enum):
    """How large a parcel is."""

    SMALL = "small"
    LARGE = "large"


@dataclass
class Line:
    """One line of an order."""

    sku: str
    quantity: int
    price: Decimal


@job(queue="imports", timeout=120)
async def import_csv(ctx: JobContext, path: str, stop_at: int = 0) -> dict[str, int]:
    """Imports the rows of a CSV file and counts them."""
    rows = 0
    with Path(path).open(newline="") as file:
        total = sum(1 for _ in file) - 1
        file.seek(0)
        for row in csv.DictReader(file):
            rows += 1
            if not row["sku"]:
                raise ValueError(f"row {rows} has no sku")
            if rows % 1000 == 0:
                await ctx.progress(rows / total, f"row {rows:,} of {total:,}")
                await asyncio.sleep(0.005)
            if rows == stop_at:
                break
    return {"rows": rows}


@job(retry=1, timeout=15)
async def fetch_page(url: str) -> dict[str, object]:
    """Fetches a page over HTTP."""

    def get() -> tuple[int, bytes]:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()

    status, body = await asyncio.to_thread(get)
    return {"status": status, "bytes": len(body)}


@job(retry=0)
def slow_digest(ctx: JobContext, text: str, seconds: float = 0.5) -> str:
    """Calls a slow synchronous library in a thread; stops between its steps when asked."""
    digest = text.encode()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ctx.cancelled:
            raise RuntimeError("stopped between two steps")
        digest = hashlib.pbkdf2_hmac("sha256", digest, b"salt", 2000)
    return digest.hex()


@job(isolation="process", retry=0, timeout=60)
def crunch(seconds: float = 1.0) -> str:
    """Computes in a process of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
    return "crunched"


@job(isolation="process", retry=0)
def crash(how: Literal["exit", "segfault"] = "exit") -> None:
    """Takes its process down."""
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(9)


@job(retry=3)
async def fails_twice(ctx: JobContext) -> str:
    """Fails at its first two runs."""
    if ctx.attempt < 3:
        raise Retry(after=0.2, error=f"run {ctx.attempt} of the supplier's service failed")
    return f"worked at run {ctx.attempt}"


@job(retry=0)
async def needs_file(path: str) -> str:
    """Fails until the file is there."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is not there yet")
    return "found"


@job
async def give_up() -> None:
    """Knows at once that trying again cannot help."""
    raise Discard("the customer has cancelled the order")


@job
async def long_result(kilobytes: int = 200) -> dict[str, str]:
    """Answers much."""
    return {"text": "x" * (kilobytes * 1024)}


@job
async def chatty(lines: int = 2000) -> int:
    """Logs much."""
    for number in range(lines):
        log.info("line %d of %d", number + 1, lines)
        if number % 100 == 0:
            await asyncio.sleep(0)
    return lines


@job
async def typed(
    day: date,
    at: datetime,
    size: Size,
    total: Decimal,
    tags: list[str],
    order: list[Line],
    speed: Literal["slow", "fast"] = "slow",
    gift: bool = False,
    note: str | None = None,
) -> dict[str, object]:
    """Takes dates, enums, decimals, lists and nested objects."""
    worth = sum(line.quantity * line.price for line in order)
    return {
        "weekday": day.strftime("%A"),
        "utc": at.isoformat(),
        "size": size.value,
        "total": str(total),
        "tags": sorted(tags),
        "worth": str(worth),
        "speed": speed,
        "gift": gift,
        "note": note,
    }


@job
async def not_json() -> object:
    """Answers something that is not made of JSON values."""
    return object()


@job(retry=0)
async def use_key(key: Secret[str]) -> str:
    """Uses a key, and carelessly names it everywhere."""
    log.info("the key is %s", key.reveal())
    raise ValueError(f"the service refused {key.reveal()}")


@job(timeout=600)
async def watch(ctx: JobContext, seconds: float = 30.0) -> str:
    """Runs until its time is over, and says how far it is."""
    steps = max(1, int(seconds * 4))
    for step in range(steps):
        await asyncio.sleep(seconds / steps)
        await ctx.progress((step + 1) / steps, f"step {step + 1} of {steps}")
    return "watched"


@job
async def greet(name: str = "world") -> str:
    """Says hello."""
    return f"hello {name}"


@job(on="order.placed", retry=0)
async def pack_order(event: dict[str, object]) -> str:
    """Packs an order as soon as it is placed."""
    return f"packed {event['doc_id']}"
