"""Which process this is, in words that no other process shares: for telling a dead worker from a living one."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """`boot_id` names the boot and the process namespace in which `pid` and `process_started` mean something."""

    host: str
    pid: int
    boot_id: str
    process_started: str


def identify(pid: int | None = None) -> Identity:
    """This process, or another of this host."""
    pid = pid or os.getpid()
    return Identity(socket.gethostname(), pid, boot_id(), _started(pid))


def boot_id() -> str:
    """Empty where the system does not tell; then only the beat tells whether a process lives."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
    except OSError:
        return ""
    return f"{boot}:{namespace.removeprefix('pid:').strip('[]')}"


def is_gone(pid: int, boot: str, started: str) -> bool:
    """Whether that process of this boot and namespace has certainly ended; False when that cannot be known."""
    if not boot or not started or boot != boot_id():
        return False
    return _started(pid) != started


def memory_mb(pid: int) -> float | None:
    """Resident memory, where the system tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1_048_576, 1)
    return None


def _started(pid: int) -> str:
    """The start time in clock ticks since boot; a zombie has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]
