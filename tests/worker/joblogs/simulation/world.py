"""Workers, ghosts, doorbells and people around the model. Any list of steps means something, so traces can be cut down."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.worker.joblogs.simulation.checks import Checks
from tests.worker.joblogs.simulation.model import TERMINAL, Held, Model

WORKERS = 3
MOST_JOBS = 4
DELAYS_S = (0.0, 0.0, 0.0, 7.0, 40.0)
WAITS_S = (1.0, 3.0, 4.0, 16.0, 400.0)
WEIGHTS = {
    "enqueue": 8, "deliver": 16, "duplicate": 4, "drop": 3, "poll": 7, "lose_answer": 3, "adopt": 3, "finish": 16,
    "repeat": 5, "crash": 4, "freeze": 3, "late": 10, "bury": 5, "beat": 8, "sweep": 7, "orphans": 2, "unheld": 5, "promote": 8, "cancel": 5,
    "retry": 6, "move": 2, "wait": 6,
}  # fmt: skip
"""What may happen next, and how often it does."""
ENDS = ("success", "success", "failed", "retrying", "retrying", "queued", "released", "cancelled", "lost")


class Step(NamedTuple):
    """Something happens; the numbers choose to whom and how, whatever there is at that moment."""

    kind: str
    a: int = 0
    b: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """An action as it was really asked for, its answer, and what all jobs looked like then."""

    now: float
    name: str
    arguments: tuple[Any, ...]
    answer: Any
    rows: tuple[Any, ...]


@dataclass(slots=True)
class Process:
    """A worker's memory: the jobs it runs. As a ghost it has been declared dead, or is about to be, and goes on."""

    worker: int
    held: list[Held] = field(default_factory=list)


def steps_of(seed: int, count: int) -> list[Step]:
    draw = random.Random(seed)
    kinds = draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
    return [Step(kind, draw.randrange(1000), draw.randrange(1000)) for kind in kinds]


class World:
    """Runs steps over a model and checks after each; `keep` remembers the calls that the steps became."""

    def __init__(self, model: Model | None = None, *, keep: bool = False) -> None:
        self.keep = keep
        self.model = model or Model()
        self.checks = Checks(self.model)
        self.calls: list[Call] = []
        self.bells: list[int] = []
        self.processes: list[Process] = []
        self.ghosts: list[Process] = []
        self.unburied: list[int] = []
        self.written: list[tuple[Any, ...]] = []
        self._workers = 0
        for _ in range(WORKERS):
            self._enter()

    def run(self, steps: Sequence[Step]) -> World:
        for number, step in enumerate(steps):
            self.model.now += 1.0 + number / 100_000  # no two jobs ever have the same time
            getattr(self, f"_{step.kind}")(step.a, step.b)
        self.drain()
        return self

    def drain(self) -> None:
        """No more faults: every job must end."""
        for ghost in self.ghosts:
            for held in ghost.held:
                self._call("finish", ghost.worker, held, "failed", None)
        for worker_id in list(self.model.beats):
            self._call("rescue", worker_id, 0.0)
        self.processes.clear()
        self._enter()
        worker = self.processes[0]
        for _ in range(60):
            if all(row.status in TERMINAL for row in self.model.jobs):
                break
            self.model.now += 700.0
            self._call("orphans", 0.0)
            self._call("promote")
            for held in self._call("poll", worker.worker, MOST_JOBS):
                self._end(worker, held, "success", None)
        self._call("rescue", worker.worker, 0.0)
        self.checks.at_the_end()

    def _call(self, name: str, *arguments: Any) -> Any:
        answer = getattr(self.model, name)(*arguments)
        self.checks.after(name, arguments, answer)
        if self.keep:
            rows = tuple(row.seen() for row in self.model.jobs)
            self.calls.append(Call(self.model.now, name, arguments, answer, rows))
        return answer

    def _enter(self) -> None:
        self._call("enter", self._workers)
        self.processes.append(Process(self._workers))
        self._workers += 1

    # Work

    def _enqueue(self, a: int, b: int) -> None:
        if len(self.model.jobs) < MOST_JOBS:
            job = self._call("enqueue", DELAYS_S[a % len(DELAYS_S)], b % 3, b % 5 == 0)
            self.bells.append(job)

    def _deliver(self, a: int, b: int) -> None:
        if self.bells:
            process = self._process(a)
            held = self._call("claim", process.worker, self.bells.pop(b % len(self.bells)))
            process.held += [held] if held else []

    def _duplicate(self, a: int, _: int) -> None:
        if (
            self.model.jobs
        ):  # a doorbell of an older epoch, of an ended job, of one that runs: all are the same message
            self.bells.append(a % len(self.model.jobs))

    def _drop(self, a: int, _: int) -> None:
        if self.bells:
            self.bells.pop(a % len(self.bells))

    def _poll(self, a: int, b: int) -> None:
        process = self._process(a)
        process.held += self._call("poll", process.worker, 1 + b % 3)

    def _lose_answer(self, a: int, b: int) -> None:
        if self.bells:
            self._call("claim", self._process(a).worker, self.bells.pop(b % len(self.bells)))

    def _adopt(self, a: int, _: int) -> None:
        process = self._process(a)
        known = {(held.job, held.epoch) for held in process.held}
        rows = self._call("held", process.worker)
        process.held += [held for held in rows if (held.job, held.epoch) not in known]

    def _finish(self, a: int, b: int) -> None:
        process = self._process(a)
        if process.held:
            held = process.held.pop(b % len(process.held))
            self._end(process, held, ENDS[b % len(ENDS)], 3.0 + b / 1000)

    def _end(self, process: Process, held: Held, how: str, after_s: float | None) -> None:
        if how == "retrying" and held.attempt > self.model.jobs[held.job].max_retries:
            how = "failed"  # the retry rule's work, not the row's
        if how in ("queued", "released"):
            self.bells.append(held.job)
        self.written.append((process.worker, held, how, after_s if how == "retrying" else None))
        self._call("finish", *self.written[-1])

    # Trouble

    def _repeat(self, a: int, _: int) -> None:
        """The answer to a finish was lost on its way, and it is written again."""
        if self.written:
            self._call("finish", *self.written[-1 - a % min(4, len(self.written))])

    def _crash(self, a: int, _: int) -> None:
        """The process is gone with all it knew."""
        process = self.processes.pop(a % WORKERS)
        self.unburied.append(process.worker)
        self._enter()

    def _freeze(self, a: int, _: int) -> None:
        """The process does not beat, is replaced, and will go on where it stopped."""
        process = self.processes.pop(a % WORKERS)
        self.unburied.append(process.worker)
        self.ghosts.append(process)
        self._enter()

    def _late(self, a: int, b: int) -> None:
        """A ghost ends what it still thinks it holds, or takes something new."""
        if not self.ghosts:
            return
        ghost = self.ghosts[a % len(self.ghosts)]
        if ghost.held:
            held = ghost.held.pop(b % len(ghost.held))
            self._end(ghost, held, ENDS[b % len(ENDS)], 3.0 + b / 1000)
        elif self.bells:
            held = self._call("claim", ghost.worker, self.bells.pop(b % len(self.bells)))
            ghost.held += [held] if held else []

    def _bury(self, a: int, b: int) -> None:
        if self.unburied:
            self._call("rescue", self.unburied.pop(a % len(self.unburied)), b / 1000)

    def _beat(self, _a: int, _b: int) -> None:
        for process in list(self.processes):
            if not self._call(
                "beat", process.worker, frozenset((h.job, h.epoch) for h in process.held)
            ):  # others had declared it dead
                self.processes.remove(process)
                self.ghosts.append(process)
                self._enter()

    def _sweep(self, _: int, b: int) -> None:
        self._call("sweep", b / 1000)

    def _orphans(self, _: int, b: int) -> None:
        self._call("orphans", b / 1000)

    def _unheld(self, _: int, b: int) -> None:
        self._call("unheld", b / 1000)

    def _promote(self, _a: int, _b: int) -> None:
        self._call("promote")

    def _wait(self, a: int, _: int) -> None:
        self.model.now += WAITS_S[a % len(WAITS_S)]

    # People

    def _cancel(self, a: int, _: int) -> None:
        if self.model.jobs:
            self._call("cancel", a % len(self.model.jobs))

    def _retry(self, a: int, b: int) -> None:
        if self.model.jobs:
            job = a % len(self.model.jobs)
            self._call("retry", job, None if b % 2 else self.model.jobs[job].epoch - b % 3)
            self.bells.append(job)

    def _move(self, a: int, b: int) -> None:
        if self.model.jobs:
            self._call("move", a % len(self.model.jobs), DELAYS_S[b % len(DELAYS_S)])

    def _process(self, a: int) -> Process:
        return self.processes[a % len(self.processes)]
