"""What the database, the events and the ledger say about what was promised. It never reads a log, and nothing of the engine's rules.

Each invariant is a function from the evidence to findings; `audit` asks all of them.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tests.chaos import ledger
from tests.chaos.ledger import Execution, Line
from tests.chaos.nemesis import Strike
from tests.chaos.site import Site
from worker.events.models import OutboxRow
from worker.joblogs.counters import by_status
from worker.joblogs.models import JobAttempt, JobLog
from worker.process.models import Worker

ENDS = {"success", "failed", "cancelled"}
MOVES = {
    "": {"queued", "scheduled"},
    "scheduled": {"queued", "cancelled"},
    "retrying": {"queued", "cancelled"},
    "queued": {"running", "cancelled"},
    "running": {"success", "failed", "retrying", "cancelled", "queued"},
    "failed": {"queued"},
    "cancelled": {"queued"},
    "success": set(),
}
"""The legal moves, as the design has them: the auditor's own copy."""
STATUS_OF = {"job.started": "running", "job.succeeded": "success"}
MOST_DEATHS = 5
"""Two in company, three alone: what poison may cost."""
NOTED_WITHIN_S = 3.0
"""A supervisor has noted a death by then, also where the database was away for two seconds."""


@dataclass(frozen=True, slots=True)
class Move:
    """One event of a job that says a status."""

    rev: int
    status: str


@dataclass(slots=True)
class Evidence:
    """Everything the auditor may look at."""

    jobs: dict[str, Any]
    """The rows of `job_logs` by id."""
    attempts: dict[str, list[Any]]
    moves: dict[str, list[Move]]
    """From the outbox, by job, in the order of their revisions."""
    executions: dict[str, list[Execution]]
    workers: list[Any]
    counted: dict[str, int]
    accepted: Sequence[str] = ()
    """Ids that a client was told are accepted."""
    repeats: Sequence[tuple[str, str]] = ()
    """Pairs of answers to one Idempotency-Key."""
    reopened: Counter[str] = field(default_factory=Counter)
    """How often a person queued an ended job again."""


@dataclass(frozen=True, slots=True)
class Finding:
    invariant: str
    job: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.job}: {self.text}"


@dataclass(frozen=True, slots=True)
class Leave:
    """What a scenario's faults may do that no engine can prevent."""

    unfinished: bool = False
    overlaps: bool = False
    """A host was cut off: its code went on while others took over."""
    strikes: Sequence[Strike] = ()
    """What was killed from outside. A strike between a job's own death and the note of it takes the note away."""


STRICT = Leave()


async def gather(site: Site) -> Evidence:
    """Reads the evidence of a site."""
    async with site.engine.database.read() as connection:
        jobs = (await connection.execute(sa.select(JobLog.__table__))).all()
        attempts = (await connection.execute(sa.select(JobAttempt.__table__))).all()
        outbox = (await connection.execute(sa.select(OutboxRow.events))).scalars().all()
        workers = (await connection.execute(sa.select(Worker.__table__))).all()
        counted = await by_status(connection)
    by_job: dict[str, list[Any]] = defaultdict(list)
    for attempt in attempts:
        by_job[str(attempt.job_id)].append(attempt)
    return Evidence(
        {str(row.id): row for row in jobs},
        by_job,
        moves_of(event for events in outbox for event in events),
        ledger.executions(site.lines()),
        list(workers),
        counted,
    )


def moves_of(events: Iterator[dict[str, Any]]) -> dict[str, list[Move]]:
    """The statuses that each job's events say. `job.lost` tells why, not where to."""
    found: dict[str, list[Move]] = defaultdict(list)
    for event in events:
        kind, data = event["event_type"], event["data"]
        if kind.startswith("job.") and kind not in ("job.lost", "job.deleted", "job.restored"):
            found[data["job_id"]].append(Move(data["rev"], STATUS_OF.get(kind, kind.removeprefix("job."))))
    return {job: sorted(moves, key=lambda move: move.rev) for job, moves in found.items()}


def audit(evidence: Evidence, leave: Leave = STRICT) -> list[Finding]:
    """Every breach of every invariant."""
    return [finding for invariant in INVARIANTS for finding in invariant(evidence, leave)]


def story(evidence: Evidence, job: str) -> str:
    """What is known of one job, in the order of its epochs: for whoever has to explain a finding."""
    pids = {str(row.id): row.pid for row in evidence.workers}
    lines = [
        (
            line.epoch,
            line.at,
            f"{line.at:.2f} {line.phase} in {line.pid}, held by worker {pids.get(line.worker)}",
        )
        for run in evidence.executions.get(job, [])
        for line in (run.start, *run.steps)
    ]
    notes = [
        (
            row.epoch,
            float("inf"),
            f"noted {row.outcome} ({row.reason}) at {row.ended_at:%H:%M:%S.%f}: {row.error}",
        )
        for row in evidence.attempts.get(job, [])
    ]
    told = (f"  epoch {epoch}: {text}" for epoch, _, text in sorted(lines + notes))
    return "\n".join([f"{job} {evidence.jobs[job].job_name}", *told])


# The invariants


def accepted_jobs_exist(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I1: what a client was told is accepted is there; one key gives one job."""
    for job in evidence.accepted:
        if job not in evidence.jobs:
            yield Finding("I1", job, "was accepted and is not there")
    for first, second in evidence.repeats:
        if first != second:
            yield Finding("I1", first, f"one Idempotency-Key also gave {second}")


def every_job_ends_once(evidence: Evidence, leave: Leave) -> Iterator[Finding]:
    """I2: one terminal state, and one event that says so for each time it was opened."""
    for job, row in evidence.jobs.items():
        if row.status not in ENDS:
            if not leave.unfinished:
                yield Finding("I2", job, f"never ended: it is {row.status}")
            continue
        ends = [move.status for move in evidence.moves.get(job, []) if move.status in ENDS]
        if len(ends) != 1 + evidence.reopened[job]:
            yield Finding("I2", job, f"ended {len(ends)} times: {', '.join(ends) or 'never, by its events'}")


def history_is_legal(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I3: the events walk only along legal moves, and end where the row stands."""
    for job, row in evidence.jobs.items():
        before = ""
        for move in evidence.moves.get(job, []):
            if move.status not in MOVES[before]:
                yield Finding(
                    "I3", job, f"went from {before or 'nothing'} to {move.status} at rev {move.rev}"
                )
            before = move.status
        if before != row.status:
            yield Finding("I3", job, f"its events end at {before or 'nothing'}, its row at {row.status}")


def epochs_grow_and_do_not_overlap(evidence: Evidence, leave: Leave) -> Iterator[Finding]:
    """I4: each execution has a higher epoch than the one before, and starts after that one has stopped."""
    for job, runs in evidence.executions.items():
        for earlier, later in itertools.pairwise(runs):
            if later.start.epoch == earlier.start.epoch:
                yield Finding("I4", job, f"was executed twice under epoch {later.start.epoch}")
            elif later.start.epoch < earlier.start.epoch:
                yield Finding("I4", job, f"epoch {later.start.epoch} began after {earlier.start.epoch}")
            overlap = earlier.left_at is not None and earlier.left_at > later.start.at
            if overlap and not leave.overlaps:
                yield Finding(
                    "I4", job, f"epoch {later.start.epoch} began before {earlier.start.epoch} ended"
                )


def success_was_earned(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I5: a success has its effect in the ledger, by the very epoch of the row."""
    for job, row in evidence.jobs.items():
        runs = evidence.executions.get(job, [])
        if row.status == "success" and not any(run.start.epoch == row.epoch and run.effects for run in runs):
            yield Finding("I5", job, f"succeeded in epoch {row.epoch} without an effect of that epoch")


def nothing_runs_unclaimed(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I6: no start without a claim; what was cancelled before it started never ran."""
    for job, runs in evidence.executions.items():
        claims = sum(move.status == "running" for move in evidence.moves.get(job, []))
        if len(runs) > claims:
            yield Finding("I6", job, f"ran {len(runs)} times and was claimed {claims} times")


def runs_are_bounded(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I7: no more runs than first try, retries and losses allow; a loss or a release burns no retry."""
    for job, row in evidence.jobs.items():
        spared = sum(a.outcome in ("lost", "released") for a in evidence.attempts.get(job, []))
        opened = 1 + evidence.reopened[job]
        runs, allowed = len(evidence.executions.get(job, [])), opened * (row.max_retries + 1) + spared
        if runs > allowed:
            yield Finding("I7", job, f"ran {runs} times, {allowed} were allowed")
        if row.attempt > row.max_retries + 1:
            yield Finding("I7", job, f"counts {row.attempt} attempts with {row.max_retries} retries")


def nobody_waits_for_the_dead(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I8: nothing is running under a worker that has ended."""
    living = {row.id for row in evidence.workers if row.ended_at is None}
    for job, row in evidence.jobs.items():
        if row.status == "running" and row.worker_id not in living:
            yield Finding("I8", job, "is running under a worker that has ended")


def events_are_complete(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I10: each job has events, and no revision says two things."""
    for job in evidence.jobs:
        moves = evidence.moves.get(job, [])
        if not moves:
            yield Finding("I10", job, "has no event")
        for earlier, later in itertools.pairwise(moves):
            if earlier.rev == later.rev:
                yield Finding("I10", job, f"says {earlier.status} and {later.status} at rev {later.rev}")


def counters_tell_the_truth(evidence: Evidence, _leave: Leave) -> Iterator[Finding]:
    """I12: the counters say what the rows say."""
    truth = Counter(row.status for row in evidence.jobs.values() if row.deleted_at is None)
    for status in sorted(set(truth) | set(evidence.counted)):
        if truth[status] != evidence.counted.get(status, 0):
            text = f"{truth[status]} rows, {evidence.counted.get(status, 0)} counted"
            yield Finding("I12", "-", f"{status}: {text}")


def jobs_end_as_they_must(evidence: Evidence, leave: Leave) -> Iterator[Finding]:
    """Innocent jobs succeed or are cancelled, guilty ones fail for their own reason, poison after a few deaths."""
    told = told_deaths(evidence, leave.strikes)
    for job, row in evidence.jobs.items():
        if row.status not in ENDS:
            continue
        verdict = (row.status, row.reason)
        if row.cancel_requested_at is not None or any(
            move.status == "cancelled" for move in evidence.moves.get(job, [])
        ):
            continue  # a cancel may win at any time; what else may happen to it is in the other invariants
        wanted = VERDICTS.get(row.job_name, [("success", None)])
        if verdict not in wanted:
            yield Finding("verdict", job, f"{row.job_name} ended as {row.status} ({row.reason}): {row.error}")
        if len(told[job]) > MOST_DEATHS:
            yield Finding("verdict", job, f"{row.job_name} was let die {len(told[job])} times")


def told_deaths(evidence: Evidence, strikes: Sequence[Strike] = ()) -> dict[str, list[Line]]:
    """The deaths that each job caused its process, without those that may have been told to nobody."""
    ends = _ends_of_processes(evidence, strikes)
    pids = {str(row.id): row.pid for row in evidence.workers}
    told: dict[str, list[Line]] = defaultdict(list)
    for job, runs in evidence.executions.items():
        died = (line for run in runs for line in run.steps if line.phase == "died")
        told[job] += [
            line for line in died if not _may_be_hidden(line, strikes, ends.get(pids.get(line.worker)))
        ]
    return told


def _may_be_hidden(died: Line, strikes: Sequence[Strike], holders_end: float | None) -> bool:
    """Whether nobody may have been left to tell this death: the strike met the process itself, or its host, or soon after the
    worker died whose child the process was."""
    alone_and_unheard = holders_end is not None and 0 < holders_end - died.at <= NOTED_WITHIN_S
    return alone_and_unheard or any(
        died.pid in strike.pids
        if strike.kind == "worker"
        else strike.kind in ("host", "supervisor") and -0.1 <= strike.at - died.at <= NOTED_WITHIN_S
        for strike in strikes
    )


def _ends_of_processes(evidence: Evidence, strikes: Sequence[Strike]) -> dict[int, float]:
    """When workers died, by a strike or by a job in their company."""
    lines = (line for runs in evidence.executions.values() for run in runs for line in run.steps)
    ends = {line.pid: line.at for line in lines if line.phase == "died"}
    return ends | {pid: strike.at for strike in strikes if strike.kind == "worker" for pid in strike.pids}


VERDICTS: dict[str, list[tuple[str, str | None]]] = {
    "always_fails": [("failed", "error")],
    "dies": [("failed", "poison")],
    "crashes": [("failed", "poison")],
    "runs_out_of_memory": [("failed", "error")],
    "recurses": [("failed", "error")],
    "gives_too_much": [("failed", "result_unstorable")],
    "gives_what_is_no_json": [("failed", "result_unstorable")],
}

INVARIANTS: tuple[Callable[[Evidence, Leave], Iterator[Finding]], ...] = (
    accepted_jobs_exist,
    every_job_ends_once,
    history_is_legal,
    epochs_grow_and_do_not_overlap,
    success_was_earned,
    nothing_runs_unclaimed,
    runs_are_bounded,
    nobody_waits_for_the_dead,
    events_are_complete,
    counters_tell_the_truth,
    jobs_end_as_they_must,
)
