"""A worker's slots: who is in them, what they still owe the database, when their patience ends. Pure but for the clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from uuid import UUID

from worker.joblogs.hold import Hold
from worker.queue.lanes import Lane

RESCUE_SLOT_S = 5.0
"""A reserved slot that has been busy this long is replaced by the next one that becomes free."""
GRACE_S = 30.0
"""How long code that was asked to stop may go on before its process must end."""


@dataclass(slots=True, eq=False)
class Execution:
    """One claimed job, from its claim until its end is in the database."""

    hold: Hold
    rescue: bool
    started: float = field(default_factory=time.monotonic)
    asked_at: float | None = None
    running: bool = True
    task: asyncio.Task[None] | None = None

    @property
    def id(self) -> UUID:
        return self.hold.claimed.id

    def ends_by(self) -> float:
        """When (monotonic) this process has to go because the job does not stop."""
        asked_at = self.started + self.hold.claimed.timeout_s
        return (asked_at if self.asked_at is None else min(asked_at, self.asked_at)) + GRACE_S


class Slots:
    """Counts. A slot is free as soon as its function ended; outcomes on their way to the database hold none.

    With more than one slot, one is kept for rescued jobs, so that they start behind any backlog.
    """

    def __init__(self, count: int, most_unwritten: int | None = None) -> None:
        self.count = count
        self.most_unwritten = most_unwritten or max(1000, 20 * count)
        self.claiming = 0
        self.running = 0
        self.held: dict[UUID, Execution] = {}
        self.closed = False
        self._rescues: set[Execution] = set()

    def start(self, execution: Execution) -> None:
        self.held[execution.id] = execution
        self.running += 1
        if execution.rescue:
            self._rescues.add(execution)

    def stopped(self, execution: Execution) -> None:
        """Its code has stopped: the slot is free, though its end is not written yet."""
        execution.running = False
        self.running -= 1
        self._rescues.discard(execution)

    def written(self, execution: Execution) -> None:
        """Its end is in the database."""
        if self.held.get(execution.id) is execution:
            del self.held[execution.id]

    def free(self, lane: Lane | None = None) -> int:
        """How many more jobs of this lane (default: an ordinary one) can start."""
        if self.closed or len(self.held) - self.running >= self.most_unwritten:
            return 0
        room = self.count - self.running - self.claiming
        if self.count > 1 and not (lane and lane.rescue) and not self._reserve_in_use():
            room -= 1
        return max(0, room)

    def _reserve_in_use(self) -> bool:
        young = time.monotonic() - RESCUE_SLOT_S
        return any(execution.started > young for execution in self._rescues)
