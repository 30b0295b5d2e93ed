"""What must hold after every step, and when everything has ended. It only looks at rows and at what workers were told."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from tests.worker.joblogs.simulation.model import TERMINAL, Held, Model
from worker.joblogs.states import may_move

ENDINGS = ("job.succeeded", "job.failed", "job.cancelled")


class Broken(AssertionError):
    """An invariant did not hold."""


class Checks:
    """The invariants, by the numbers of the reliability notes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.before: list[tuple[str, int]] = []
        self.endings: list[int] = []
        self.started: Counter[tuple[int, int]] = Counter()
        self.burnt: Counter[int] = Counter()
        """Executions since the last retry by a person that used up one of the job's runs."""
        self.succeeded: set[tuple[int, int]] = set()

    def after(self, name: str, arguments: tuple[Any, ...], answer: Any) -> None:
        self._note(name, arguments, answer)
        for job, row in enumerate(self.model.jobs):
            if job == len(self.before):
                self.before.append((row.status, row.epoch))
                self.endings.append(0)
            status, epoch = self.before[job]
            where = f"job {job} after {name}{arguments}: {status}@{epoch} -> {row.status}@{row.epoch}"
            if status != row.status and not may_move(status, row.status):
                raise Broken(f"I3, no legal move: {where}")
            if row.epoch < epoch or ((row.status, status) == ("running", "queued") and row.epoch <= epoch):
                raise Broken(f"I4, the epoch did not grow: {where}")
            if status in TERMINAL and (row.status, row.epoch) != (status, epoch) and name != "retry":
                raise Broken(f"I2, an end changed: {where}")
            endings = sum(event in ENDINGS for event in row.events)
            ended = status not in TERMINAL and row.status in TERMINAL
            if endings != self.endings[job] + ended:
                raise Broken(f"I2, {endings - self.endings[job]} terminal events: {where}")
            if not 0 <= row.attempt <= row.max_retries + 1 or self.burnt[job] > row.max_retries + 1:
                raise Broken(f"I7, {self.burnt[job]} runs of {row.max_retries + 1} allowed: {where}")
            self.before[job], self.endings[job] = (row.status, row.epoch), endings

    def at_the_end(self) -> None:
        for job, row in enumerate(self.model.jobs):
            if row.status not in TERMINAL:
                raise Broken(f"I2, job {job} never ended: {row}")
            if row.status == "success" and (job, row.epoch) not in self.succeeded:
                raise Broken(f"I5, job {job} succeeded without an execution that did: {row}")
            again = (
                now for before, now in pairwise(row.events) if before == "job.lost" and now not in ENDINGS
            )
            if row.fragile and (event := next(again, None)):
                raise Broken(f"I8, job {job} must not run again, and became {event}: {row.events}")
            runs = sum(count for (of, _), count in self.started.items() if of == job)
            if row.events.count("job.started") != runs:
                raise Broken(f"I6, job {job} was started {runs} times: {row.events}")

    def _note(self, name: str, arguments: tuple[Any, ...], answer: Any) -> None:
        claims: list[Held] = answer if name == "poll" else [answer] if name == "claim" and answer else []
        for held in claims:
            self.started[(held.job, held.epoch)] += 1
            if self.started[(held.job, held.epoch)] > 1:
                raise Broken(f"I4, {held} was given out twice")
        if name == "retry" and answer == "queued":
            self.burnt[arguments[0]] = 0
        if name == "finish" and answer:
            held, how = arguments[1], arguments[2]
            self.burnt[held.job] += how in ("success", "failed", "retrying")
            if how == "success":
                self.succeeded.add((held.job, held.epoch))
