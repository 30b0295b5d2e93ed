"""Desks that lack one guard each. The checks must find each of them out, and so must a replay on the database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import count, islice

from tests.worker.joblogs.simulation.checks import Broken
from tests.worker.joblogs.simulation.model import STOPPING_S, Held, Model, Row
from tests.worker.joblogs.simulation.world import Call, World, steps_of


class NoFence(Model):
    def holds(self, worker: int, held: Held, row: Row) -> bool:
        return True


class NoEpochInTheFence(Model):
    def holds(self, worker: int, held: Held, row: Row) -> bool:
        return row.status == "running" and row.worker == worker


class NoStatusInTheFence(Model):
    def holds(self, worker: int, held: Held, row: Row) -> bool:
        return row.epoch == held.epoch and row.worker == worker


class FencedByAttempt(Model):
    def holds(self, worker: int, held: Held, row: Row) -> bool:
        return row.status == "running" and row.attempt == held.attempt


class NoClaimGuard(Model):
    def may_claim(self, worker: int, row: Row) -> bool:
        return row.status in ("queued", "running") and row.run_at <= self.now and worker in self.beats


class TheDeclaredDeadMayClaim(Model):
    def may_claim(self, worker: int, row: Row) -> bool:
        return row.status == "queued" and row.run_at <= self.now


class RetryResetsTheEpoch(Model):
    def retry(self, job: int, seen_epoch: int | None) -> str:
        answer = super().retry(job, seen_epoch)
        self.jobs[job].epoch = 0 if answer == "queued" else self.jobs[job].epoch
        return answer


class NoSweeper(Model):
    def orphans(self, chance: float) -> int:
        return 0

    def rescue(self, worker: int, chance: float) -> int:
        return 0


class TheListIsAlwaysBelieved(Model):
    """Also one that is older than the claim."""

    def unheld(self, chance: float) -> int:
        lost = [
            row
            for job, row in enumerate(self.jobs)
            if row.worker in self.beats and (job, row.epoch) not in self.lists.get(row.worker, (0.0, ()))[1]
        ]
        return self._take_back(lost, chance)


class RescueByASnapshot(Model):
    def _take_back(self, rows: Iterable[Row], chance: float) -> int:
        for row in rows:  # whatever became of them since they were looked at
            self._lose(row, chance)
        return 0


class FoundLateIsOverdue(Model):
    def is_overdue(self, row: Row) -> bool:
        return self.now - row.started_at > row.timeout_s + STOPPING_S


class CancelForgotten(Model):
    def finish(self, worker: int, held: Held, how: str, after_s: float | None) -> bool:
        self.jobs[held.job].asked_to_stop = False
        return super().finish(worker, held, how, after_s)


class WhatMustNotRunTwiceDoes(Model):
    def is_fragile(self, row: Row) -> bool:
        return False


UNSAFE = (
    NoFence,
    NoStatusInTheFence,
    FencedByAttempt,
    NoClaimGuard,
    RetryResetsTheEpoch,
    NoSweeper,
    RescueByASnapshot,
    WhatMustNotRunTwiceDoes,
)
"""They break an invariant, whatever the intention was."""
WRONG = (
    *UNSAFE,
    NoEpochInTheFence,
    TheDeclaredDeadMayClaim,
    TheListIsAlwaysBelieved,
    FoundLateIsOverdue,
    CancelForgotten,
)
"""They do something else than the model."""


@cache
def telling(length: int, most: int) -> list[int]:
    """Seeds whose traces tell some mutant from the model, `most` for each: the ones worth a database's time."""
    return sorted({seed for mutant in WRONG for seed in islice(_telling(mutant, length), most)})


def _telling(mutant: type[Model], length: int) -> Iterator[int]:
    return (seed for seed in count() if _calls(mutant, seed, length) != _calls(Model, seed, length))


def _calls(kind: type[Model], seed: int, length: int) -> list[Call] | None:
    try:
        return World(kind(), keep=True).run(steps_of(seed, length)).calls
    except Broken:
        return None
