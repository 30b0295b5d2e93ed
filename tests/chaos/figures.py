"""The figures of a run, from ledger, strikes and rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from tests.chaos.auditor import ENDS, Evidence, Finding
from tests.chaos.generator import Cancel
from tests.chaos.ledger import Execution
from tests.chaos.nemesis import Strike

DEADLY = ("worker", "host", "supervisor")


@dataclass(frozen=True, slots=True)
class Cut:
    """An execution that a strike ended in mid-run, and how long it took until the job ran again (None: it never did)."""

    job: str
    at: float
    again_s: float | None


def cuts(
    executions: dict[str, list[Execution]], strikes: Iterable[Strike], kinds: Sequence[str] = DEADLY
) -> list[Cut]:
    """What was running in the processes that were struck, at the moment they were."""
    hit = {pid: strike.at for strike in strikes if strike.kind in kinds for pid in strike.pids}
    found = []
    for job, runs in executions.items():
        for index, run in enumerate(runs):
            at = hit.get(run.start.pid)
            if at is None or run.start.at > at or (run.left_at is not None and run.left_at <= at):
                continue
            later = runs[index + 1].start.at - at if index + 1 < len(runs) else None
            found.append(Cut(job, at, later))
    return found


def double_effects(evidence: Evidence) -> int:
    """Effects beyond the first of each time that a job was opened."""
    return sum(
        max(0, sum(run.effects for run in runs) - 1 - evidence.reopened[job])
        for job, runs in evidence.executions.items()
    )


def deaths(evidence: Evidence, strikes: Iterable[Strike]) -> int:
    """Worker children that were killed, by the nemesis or by a job of theirs."""
    killed = sum(len(strike.pids) for strike in strikes if strike.kind in DEADLY)
    runs = chain.from_iterable(evidence.executions.values())
    return killed + sum(line.phase == "died" for run in runs for line in run.steps)


def stale_finishes(evidence: Evidence) -> int:
    return sum(row.stale_finishes for row in evidence.workers)


def executed_twice(findings: Iterable[Finding]) -> int:
    return sum("executed twice under epoch" in finding.text for finding in findings)


def not_one_end(findings: Iterable[Finding]) -> int:
    return len({finding.job for finding in findings if finding.invariant == "I2"})


def lost(evidence: Evidence) -> int:
    """Accepted jobs that are not there, or that never ended."""
    known = {job for job, row in evidence.jobs.items() if row.status in ENDS}
    wanted = set(evidence.accepted) | set(evidence.jobs)
    return len(wanted - known)


def innocent_poison(evidence: Evidence) -> int:
    guilty = {"dies", "crashes"}
    return sum(row.reason == "poison" and row.job_name not in guilty for row in evidence.jobs.values())


def running_cancels(cancels: Iterable[Cancel], executions: dict[str, list[Execution]]) -> list[float]:
    """Seconds from the wish to cancel until the running code had stopped."""
    found = []
    for cancel in cancels:
        for run in executions.get(str(cancel.job_id), []):
            running = run.start.at < cancel.asked_at and (run.left_at or 0) > cancel.asked_at
            if cancel.answer == "requested" and running and run.steps[-1].phase == "stopped":
                found.append(run.steps[-1].at - cancel.asked_at)
    return found


def quantile(values: Sequence[float], share: float) -> float | None:
    """None of nothing; the largest of a few."""
    if not values:
        return None
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
