"""What the supervisor knows of its children: what each one last said, by when it must have ended, how often its place died."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from worker.process.identity import memory_mb
from worker.process.platform import Running
from worker.process.presence import Beat

SILENT_S = 10.0
"""A worker child that has said nothing for so long has a blocked loop, is frozen, or its machine is overloaded."""
FREE_DEATHS = 3
LONGEST_PAUSE_S = 30.0


@dataclass(slots=True, eq=False)
class Child:
    """One process, from its start to its burial."""

    worker_id: UUID
    module: str
    process: Running
    started: float
    place: str = ""
    """The name of the place where it stands or stood."""
    ready: bool = False
    beats: int = 0
    busy: int = 0
    finished: int = 0
    held: list[list[Any]] = field(default_factory=list)
    """[[job id, epoch, seconds until its process must end], …] as of `held_at`."""
    held_at: float = 0.0
    heard_at: float = field(default_factory=time.monotonic)
    """When it last said anything: a healthy worker child does every second."""
    asked_at: float = 0.0
    leaving: str = ""
    """Why it was asked to stop; empty while it works."""
    left_at: float = 0.0
    patient: bool = False
    """It leaves when its jobs have ended, however long they run."""
    wished: str = ""
    """What operators asked of it, once that was heard."""
    kill_at: float | None = None
    overdue: set[UUID] = field(default_factory=set)
    failed: str = ""

    def heard(self, facts: dict[str, Any]) -> None:
        self.heard_at = time.monotonic()
        self.ready = self.ready or bool(facts.get("ready"))
        self.failed = facts.get("failed", self.failed)
        self.finished = facts.get("finished", self.finished)
        self.busy = facts.get("busy", self.busy)
        if "held" in facts:
            self.held, self.held_at = facts["held"], facts.get("at", time.monotonic())

    def silent(self, now: float) -> bool:
        """Whether the database has to be asked what it holds; once in a while. The clerk speaks only once and holds nothing."""
        if (
            self.module.endswith("clerk")
            or not self.ready
            or now - max(self.heard_at, self.asked_at) < SILENT_S
        ):
            return False
        self.asked_at = now
        return True

    def hangs(self, now: float, after_s: float) -> bool:
        """Whether it leaves in its own time, but holds nothing and has said nothing for so long. Jobs have deadlines, this has none."""
        return self.patient and not self.held and now - max(self.heard_at, self.left_at) > after_s

    def learned(self, held: list[list[Any]]) -> None:
        """What the database says that it holds: a loop that was blocked at once could not say what it had just claimed."""
        if self.heard_at < self.asked_at:
            self.held, self.held_at = held, time.monotonic()

    def past_deadline(self, now: float) -> set[UUID]:
        """Jobs that were asked to stop long ago and still run; by this clock, so a child that hangs cannot hide them."""
        return {UUID(job_id) for job_id, _, left_s in self.held if self.held_at + left_s < now}

    def beat(self) -> Beat:
        self.beats += 1
        held = [[job_id, epoch] for job_id, epoch, _ in self.held]
        age_s = time.monotonic() - self.held_at
        return Beat(self.worker_id, self.beats, held, self.busy, memory_mb(self.process.pid), age_s)


@dataclass(slots=True, eq=False)
class Place:
    """Where a child stands: replaced when it leaves or dies, ever more slowly when it dies without finishing anything."""

    name: str
    module: str
    child: Child | None = None
    worked: bool = False
    deaths: int = 0
    start_at: float = 0.0
    drained: bool = False
    """An operator drained its child: it stays empty until the supervisor is told to replace every child."""

    def died(self, child: Child, now: float) -> float:
        """Seconds until the next start."""
        self.deaths = 1 if child.finished else self.deaths + 1
        pause = (
            0.0
            if self.deaths <= FREE_DEATHS
            else min(LONGEST_PAUSE_S, 2.0 ** (self.deaths - FREE_DEATHS - 1))
        )
        self.start_at = now + pause
        return pause
