"""What a benchmark's job body does: one entry in a memory-mapped file of its process, about a microsecond each.

Standard library only: the peers' workers import it in environments of their own. The folder is `BENCH_TALLY`; a job takes `BENCH_SLEEP_S`.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HEAD = struct.Struct("QQQ")
"""Executions, nanoseconds of the first and of the last one on the machine's monotonic clock."""
LAGS = 4096
LAG = struct.Struct("q")
SIZE = HEAD.size + LAG.size * LAGS

_lock = threading.Lock()
_open: dict[int, mmap.mmap] = {}


def hit(sent_ns: int = 0) -> None:
    """One execution, now; with `sent_ns` its lag since the job was handed in is kept too."""
    now = time.monotonic_ns()
    with _lock:
        page = _open.get(os.getpid()) or _map()
        count, first, _ = HEAD.unpack_from(page)
        if sent_ns and count < LAGS:
            LAG.pack_into(page, HEAD.size + LAG.size * count, now - sent_ns)
        HEAD.pack_into(page, 0, count + 1, first or now, now)
    if sleep_s := float(os.environ.get("BENCH_SLEEP_S", "0")):
        time.sleep(sleep_s)


def _map() -> mmap.mmap:
    path = Path(os.environ["BENCH_TALLY"]) / str(os.getpid())
    with path.open("w+b") as file:
        file.truncate(SIZE)
        page = _open[os.getpid()] = mmap.mmap(file.fileno(), SIZE)
    return page


@dataclass
class Total:
    """Over all processes."""

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    lags_ns: list[int] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return (self.count - 1) / ((self.last_ns - self.first_ns) / 1e9) if self.count > 1 else 0.0


def read(folder: Path) -> Total:
    """What all processes have done so far."""
    total = Total()
    for path in folder.iterdir():
        page = path.read_bytes()
        if len(page) < SIZE:
            continue
        count, first, last = HEAD.unpack_from(page)
        total.count += count
        total.first_ns = min(total.first_ns or first, first) if first else total.first_ns
        total.last_ns = max(total.last_ns, last)
        lags = struct.unpack_from(f"{LAGS}q", page, HEAD.size)
        total.lags_ns += [lag for lag in lags if lag]
    return total


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
