"""What the jobs really did: a file that every step of every execution is appended to, outside of the database."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

VARIABLE = "CHAOS_LEDGER"

Phase = Literal["start", "end", "raised", "stopped", "died"]
"""Began; its effect happened; it raised; it was asked to stop and did; it is about to end its own process."""


@dataclass(frozen=True, slots=True)
class Line:
    """One step. `at` is monotonic and the same for all processes of the machine."""

    job: str
    epoch: int
    attempt: int
    worker: str
    pid: int
    at: float
    phase: str


@dataclass(slots=True)
class Execution:
    """All that one (job, epoch) wrote in one process."""

    start: Line
    steps: list[Line] = field(default_factory=list)

    @property
    def left_at(self) -> float | None:
        """When it had stopped, by its own word; None when it was cut off."""
        return self.steps[-1].at if self.steps else None

    @property
    def effects(self) -> int:
        return sum(line.phase == "end" for line in self.steps)


def write(phase: Phase, job: str, epoch: int, attempt: int, worker: str) -> None:
    """Appends one line. A single short write to a file opened for appending is never torn or mixed."""
    words = f"{job} {epoch} {attempt} {worker} {os.getpid()} {time.monotonic():.6f} {phase}\n"
    os.write(_file(os.environ[VARIABLE]), words.encode())


def read(path: Path) -> list[Line]:
    """Every line, oldest first."""
    if not path.exists():
        return []
    lines = [_line(words.split()) for words in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: line.at)


class Now:
    """What is in mid-run, by a ledger that grows: each look reads what was appended since the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._running: set[tuple[str, int, int]] = set()

    def running(self) -> set[tuple[str, int, int]]:
        """Job, epoch and pid of each."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            appended = file.read()
        whole = appended[: appended.rfind(b"\n") + 1]  # a line that is being written is for the next look
        self._read += len(whole)
        for line in map(_line, map(str.split, whole.decode().splitlines())):
            step = self._running.add if line.phase == "start" else self._running.discard
            step((line.job, line.epoch, line.pid))
        return self._running


def executions(lines: Iterable[Line]) -> dict[str, list[Execution]]:
    """The executions of each job in the order of their starts."""
    found: dict[str, list[Execution]] = defaultdict(list)
    running: dict[tuple[str, int, int], Execution] = {}
    for line in lines:
        key = (line.job, line.epoch, line.pid)
        if line.phase == "start":
            running[key] = Execution(line)
            found[line.job].append(running[key])
        else:
            running[key].steps.append(line)
    return found


def _line(words: list[str]) -> Line:
    job, epoch, attempt, worker, pid, at, phase = words
    return Line(job, int(epoch), int(attempt), worker, int(pid), float(at), phase)


@cache
def _file(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
