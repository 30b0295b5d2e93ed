"""What a desk must do with its jobs: one plain function per action. Nothing of the engine's rules is used here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

LIVE = ("scheduled", "queued", "running", "retrying")
TERMINAL = ("success", "failed", "cancelled")
LEASE_S = 15.0
STOPPING_S = 20.0
ADOPTION_S = 10.0
POISON_AFTER = 3
"""Deaths of a process that ran nothing else."""
HOPELESS_AFTER = 20
"""Losses with a worker, while at most five others ended."""
HOPELESS_ANYWAY = 100


@dataclass(slots=True)
class Row:
    """A job. Times are seconds of the virtual clock."""

    status: str
    run_at: float
    max_retries: int
    fragile: bool = False
    """It must not run again when it was cut off."""
    timeout_s: float = 300.0
    epoch: int = 0
    attempt: int = 0
    lost_count: int = 0
    died_alone: int = 0
    lane: str = "normal"
    reason: str | None = None
    worker: int | None = None
    started_at: float = 0.0
    asked_to_stop: bool = False
    lost_at: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def seen(self) -> tuple[str, int, int, int, int, str, str | None]:
        """What is compared with the database."""
        return (
            self.status, self.epoch, self.attempt, self.lost_count, self.died_alone, self.lane, self.reason
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker remembers of a job that it claimed."""

    job: int
    epoch: int
    attempt: int
    lost_count: int


@dataclass(slots=True)
class Watch:
    """One sweeper's view of the beats, by its own clock."""

    seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    last: float | None = None


class Model:
    """The truth. `now` is the virtual clock, moved from outside."""

    def __init__(self) -> None:
        self.now = 0.0
        self.jobs: list[Row] = []
        self.beats: dict[int, int] = {}
        """Workers that have not ended, and how often each has beaten."""
        self.last_seen: dict[int, float] = {}
        """When each entered or last beat while it counted as living."""
        self.ended_at: list[float] = []
        """When others ended."""
        self.lists: dict[int, tuple[float, frozenset[tuple[int, int]]]] = {}
        """When each last said what it holds: jobs and epochs."""
        self.watch = Watch()

    # Workers

    def enter(self, worker: int) -> None:
        self.beats[worker] = 0
        self.last_seen[worker] = self.now

    def beat(self, worker: int, holds: frozenset[tuple[int, int]]) -> bool:
        """Whether the worker still counts as living."""
        if worker in self.beats:
            self.beats[worker] += 1
            self.last_seen[worker] = self.now
            self.lists[worker] = self.now, holds
        return worker in self.beats

    # Jobs

    def enqueue(self, delay_s: float, max_retries: int, fragile: bool) -> int:
        status = "scheduled" if delay_s > 0 else "queued"
        self.jobs.append(Row(status, self.now + delay_s, max_retries, fragile, events=[f"job.{status}"]))
        return len(self.jobs) - 1

    def claim(self, worker: int, job: int) -> Held | None:
        row = self.jobs[job]
        if not self.may_claim(worker, row):
            return None
        row.status, row.worker, row.started_at = "running", worker, self.now
        row.epoch += 1
        row.attempt += 1
        row.events.append("job.started")
        return Held(job, row.epoch, row.attempt, row.lost_count)

    def may_claim(self, worker: int, row: Row) -> bool:
        return row.status == "queued" and row.run_at <= self.now and worker in self.beats

    def poll(self, worker: int, limit: int) -> list[Held]:
        in_turn = [(row.lane == "normal", row.run_at, job) for job, row in enumerate(self.jobs)]
        waiting = [job for *_, job in sorted(in_turn)]  # rescued ones first
        ready = [job for job in waiting if self.may_claim(worker, self.jobs[job])]
        return [held for job in ready[:limit] if (held := self.claim(worker, job))]

    def held(self, worker: int) -> list[Held]:
        mine = [(j, r) for j, r in enumerate(self.jobs) if r.status == "running" and r.worker == worker]
        return [Held(job, row.epoch, row.attempt, row.lost_count) for job, row in mine]

    def finish(self, worker: int, held: Held, how: str, after_s: float | None) -> bool:
        row = self.jobs[held.job]
        if not self.holds(worker, held, row):
            return False
        status, reason = how, None if how in ("success", "lost") else how
        if how == "lost":
            row.lost_count += 1
            row.lost_at.append(self.now)
            row.died_alone += 1
            status, reason = self._cut_off(row, None, poisoned=row.died_alone >= POISON_AFTER)
            row.events.append("job.lost")
        if how == "released":
            status, reason = self._cut_off(row, "released", poisoned=False)
        if status == "queued":
            row.epoch += 1
            row.attempt -= 1
            if how == "lost":
                row.lane = "alone" if row.lost_count >= 2 else "rescue"
        if row.asked_to_stop and status != "success":
            status, reason = "cancelled", "cancelled"
        if after_s is not None:
            row.run_at = self.now + after_s
        row.status, row.reason = status, reason
        row.events.append("job.succeeded" if status == "success" else f"job.{status}")
        return True

    def _cut_off(self, row: Row, reason: str | None, *, poisoned: bool) -> tuple[str, str | None]:
        if self.is_fragile(row):
            return "failed", "worker_lost"
        return ("failed", "poison") if poisoned else ("queued", reason)

    def is_fragile(self, row: Row) -> bool:
        return row.fragile

    def holds(self, worker: int, held: Held, row: Row) -> bool:
        """The fence."""
        return row.status == "running" and row.epoch == held.epoch and row.worker == worker

    # The sweeper

    def promote(self) -> int:
        due = [r for r in self.jobs if r.status in ("scheduled", "retrying") and r.run_at <= self.now]
        for row in due:
            row.status = "queued"
            row.events.append("job.queued")
        return len(due)

    def rescue(self, worker: int, chance: float) -> int:
        if self.beats.pop(worker, None) is not None:
            self.ended_at.append(self.now)
        return self._take_back([r for r in self.jobs if r.worker == worker], chance)

    def orphans(self, chance: float) -> int:
        return self._take_back([r for r in self.jobs if r.worker not in self.beats], chance)

    def unheld(self, chance: float) -> int:
        """Jobs that their living worker does not hold, by a list that it made when it could have adopted them."""
        lost = []
        for job, row in enumerate(self.jobs):
            if row.worker in self.beats and row.worker in self.lists:
                at, holds = self.lists[row.worker]
                if at - row.started_at > ADOPTION_S and (job, row.epoch) not in holds:
                    lost.append(row)
        return self._take_back(lost, chance)

    def sweep(self, chance: float) -> int:
        watch, now = self.watch, self.now
        if watch.last is not None and now - watch.last > LEASE_S / 3:
            watch.seen.clear()
        watch.last = now
        before, watch.seen = watch.seen, {}
        for worker, beat in self.beats.items():
            known = before.get(worker)
            watch.seen[worker] = known if known and known[0] == beat else (beat, now)
        dead = [worker for worker, (_, since) in watch.seen.items() if now - since >= LEASE_S]
        return sum(self.rescue(worker, chance) for worker in dead) + self.orphans(chance)

    def _take_back(self, rows: Iterable[Row], chance: float) -> int:
        running = [row for row in rows if row.status == "running"]
        for row in running:
            self._lose(row, chance)
        return len(running)

    def _lose(self, row: Row, chance: float) -> None:
        overdue = self.is_overdue(row)
        if not overdue:
            row.events.append("job.lost")
        if row.asked_to_stop:
            row.status, row.reason = "cancelled", "cancelled"
        elif overdue and row.attempt <= row.max_retries:
            row.status, row.reason = "retrying", "timeout"
            row.epoch += 1
            row.run_at = self.now + chance * min(600.0, 2.0 * 2.0 ** (row.attempt - 1))
        elif overdue:
            row.status, row.reason = "failed", "timeout"
        elif self.is_fragile(row):
            row.status, row.reason = "failed", "worker_lost"
            row.lost_count += 1
        elif self._is_hopeless(row):
            row.status, row.reason = "failed", "poison"
            row.lost_count += 1
        else:
            row.status, row.reason = "queued", None
            row.epoch += 1
            row.attempt -= 1
            row.lost_count += 1
            row.lost_at.append(self.now)
            row.lane = "alone" if row.lost_count >= 2 else "rescue"
        row.events.append(f"job.{row.status}")

    def is_overdue(self, row: Row) -> bool:
        return self.last_seen.get(row.worker, row.started_at) - row.started_at > row.timeout_s + STOPPING_S

    def _is_hopeless(self, row: Row) -> bool:
        losses = row.lost_count + 1
        if losses < HOPELESS_AFTER or losses >= HOPELESS_ANYWAY:
            return losses >= HOPELESS_ANYWAY
        since = row.lost_at[-(HOPELESS_AFTER - 1)]
        return sum(at >= since for at in self.ended_at) <= HOPELESS_AFTER + 5

    # People

    def cancel(self, job: int) -> str:
        row = self.jobs[job]
        if row.status in TERMINAL:
            return "too late"
        if row.status == "running":
            row.asked_to_stop = True
            return "requested"
        row.status, row.reason = "cancelled", "cancelled"
        row.events.append("job.cancelled")
        return "done"

    def retry(self, job: int, seen_epoch: int | None) -> str:
        row = self.jobs[job]
        if seen_epoch is not None and row.epoch > seen_epoch and row.status in LIVE:
            return "already"
        if row.status not in ("failed", "cancelled"):
            return "not now"
        self.jobs[job] = replace(
            row, status="queued", run_at=self.now, epoch=row.epoch + 1, attempt=0, lost_count=0, died_alone=0,
            lane="normal", reason=None, worker=None, asked_to_stop=False, events=[*row.events, "job.queued"],
        )  # fmt: skip
        return "queued"

    def move(self, job: int, delay_s: float) -> str:
        row = self.jobs[job]
        if row.status not in ("scheduled", "retrying", "queued"):
            return "not now"
        row.run_at = self.now + delay_s
        status = "scheduled" if delay_s > 0 else "queued"
        if row.status != "retrying" and row.status != status:
            row.status = status
            row.events.append(f"job.{status}")
        return "moved"
