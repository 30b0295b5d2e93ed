"""The auditor finds what is wrong: each breach is planted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import auditor, figures, ledger
from tests.chaos.auditor import STRICT, Evidence, Leave, Move
from tests.chaos.generator import plan, storm
from tests.chaos.ledger import Line
from tests.chaos.nemesis import Strike

JOB = "0192"
GOOD = ["queued", "running", "success"]


def row(**columns: Any) -> Any:
    usual = {
        "id": JOB, "job_name": "work", "status": "success", "reason": None, "error": None, "epoch": 1, "attempt": 1,
        "max_retries": 3, "worker_id": 7, "cancel_requested_at": None, "deleted_at": None,
    }  # fmt: skip
    return SimpleNamespace(**(usual | columns))


def line(phase: str, at: float, epoch: int = 1, pid: int = 10) -> Line:
    return Line(JOB, epoch, 1, "w", pid, at, phase)


def evidence(statuses: list[str] = GOOD, *lines: Line, **columns: Any) -> Evidence:
    """One job whose events say `statuses`; by default it ran once and its effect happened."""
    job = row(**columns)
    return Evidence(
        jobs={JOB: job},
        attempts={},
        moves={JOB: [Move(rev, status) for rev, status in enumerate(statuses, 1)]},
        executions=ledger.executions(lines or (line("start", 1.0), line("end", 1.1))),
        workers=[SimpleNamespace(id=7, pid=7, ended_at=None, stale_finishes=0)],
        counted={job.status: 1},
        accepted=[JOB],
    )


def invariants(found: Evidence, leave: Leave = STRICT) -> set[str]:
    return {finding.invariant for finding in auditor.audit(found, leave)}


def test_nothing_is_found_in_a_good_run() -> None:
    assert auditor.audit(evidence()) == []


def _unknown(found: Evidence) -> None:
    found.accepted = ["0193"]


def _repeated(found: Evidence) -> None:
    found.repeats = [(JOB, "0193")]


def _miscounted(found: Evidence) -> None:
    found.counted["success"] = 2


def _silent(found: Evidence) -> None:
    found.moves.clear()


def _two_words(found: Evidence) -> None:
    found.moves[JOB] = [Move(1, "queued"), Move(2, "running"), Move(2, "success")]


@pytest.mark.parametrize(
    ("invariant", "spoil"),
    [("I1", _unknown), ("I1", _repeated), ("I12", _miscounted), ("I10", _silent), ("I10", _two_words)],
)
def test_a_spoilt_record_is_found(invariant: str, spoil: Callable[[Evidence], None]) -> None:
    found = evidence()
    spoil(found)
    assert invariant in invariants(found)


@pytest.mark.parametrize(
    ("invariant", "bad"),
    [
        ("I2", evidence(["queued", "running"], status="running")),
        ("I2", evidence(["queued", "running", "success", "success"])),
        ("I3", evidence(["queued", "success"])),
        ("I3", evidence(["queued", "running", "failed"])),
        ("I4", evidence([*GOOD[:2], "queued", *GOOD[1:]], line("start", 1), line("start", 2, pid=11), line("end", 3))),
        ("I4", evidence(GOOD, line("start", 1, 3), line("start", 2, 1, 11), line("end", 3, 1, 11))),
        ("I4", evidence(GOOD, line("start", 1), line("start", 2, 3, 11), line("end", 3), line("end", 3, 3, 11), epoch=3)),
        ("I5", evidence(GOOD, line("start", 1), line("end", 2), epoch=2)),
        ("I6", evidence(["queued", "cancelled"], status="cancelled")),
        ("I7", evidence(GOOD, line("start", 1), line("start", 2, 2), line("end", 3, 2), epoch=2, max_retries=0)),
        ("I7", evidence(attempt=5)),
        ("I8", evidence(["queued", "running"], status="running", worker_id=8)),
        ("verdict", evidence([*GOOD[:2], "failed"], status="failed", reason="poison")),
    ],
)  # fmt: skip
def test_a_bad_history_is_found(invariant: str, bad: Evidence) -> None:
    assert invariant in invariants(bad)


def test_code_that_ran_on_while_its_host_was_cut_off_is_forgiven_where_nothing_can_prevent_it() -> None:
    moves = ["queued", "running", "queued", "running", "success"]
    steps = (line("start", 1), line("start", 2, 3, 11), line("end", 3), line("end", 3, 3, 11))
    found = evidence(moves, *steps, epoch=3)
    found.attempts[JOB] = [SimpleNamespace(outcome="lost")]
    assert invariants(found) == {"I4"}
    assert invariants(found, Leave(overlaps=True)) == set()
    assert figures.double_effects(found) == 1


def test_a_death_is_excused_by_a_strike_that_may_have_hidden_it_and_by_no_other() -> None:
    runs = [
        line(phase, at, epoch, 10 + epoch)
        for epoch in range(1, 7)
        for phase, at in (("start", epoch), ("died", epoch + 0.5))
    ]
    moves = [*["queued", "running"] * 6, "failed"]
    found = evidence(moves, *runs, job_name="dies", status="failed", reason="poison", epoch=7)  # type: ignore[arg-type]
    found.attempts[JOB] = [SimpleNamespace(outcome="lost")] * 6

    def verdicts(*strikes: Strike) -> bool:
        return "verdict" in invariants(found, Leave(strikes=strikes))

    assert verdicts()
    assert verdicts(Strike("worker", 1.5, (99,)), Strike("host", 0.5, (11,)), Strike("clerk", 1.5, (11,)))
    assert not verdicts(Strike("worker", 1.5, (11,)))
    assert not verdicts(Strike("host", 2.0, (99,)))
    found.workers.append(SimpleNamespace(id="w", pid=50, ended_at=None, stale_finishes=0))
    assert verdicts(Strike("worker", 1.4, (50,)), Strike("worker", 9.9, (50,)))
    assert not verdicts(Strike("worker", 1.7, (50,)))
    neighbour = replace(line("died", 1.7, pid=50), job="0193")
    found.executions["0193"] = [ledger.Execution(neighbour, [neighbour])]
    assert not verdicts()


def test_a_cut_is_what_ran_in_a_struck_process_and_lasts_until_it_runs_again() -> None:
    runs = ledger.executions(
        [line("start", 1), line("start", 4, 3, 11), line("end", 5, 3, 11), line("start", 9, 5, 12)]
    )
    strikes = [Strike("worker", 2.0, (10,)), Strike("worker", 6.0, (11,)), Strike("clerk", 9.5, (12,))]
    assert [(cut.at, cut.again_s) for cut in figures.cuts(runs, strikes)] == [(2.0, 2.0)]


def test_a_seed_gives_its_plan_again() -> None:
    assert plan(7, storm(500)) == plan(7, storm(500))
    assert plan(7, storm(500)) != plan(8, storm(500))


def test_the_plan_holds_every_kind_of_job_in_its_share() -> None:
    wishes = plan(1, storm(10_000))
    names = [wish.job for wish in wishes]
    assert 400 < names.count("fails_once") < 600
    assert 25 < names.count("dies") < 80
    assert 150 < sum(wish.cancel_after_s is not None for wish in wishes) < 250
    assert sum(wish.at_s == 0 for wish in wishes) == 2001
    assert 60 < wishes[-1].at_s < 70


def test_what_is_running_follows_the_ledger_and_waits_for_a_line_to_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text("a 1 1 w 10 1.0 start\nb 1 1 w 11 1.1 start\n")
    now = ledger.Now(path)
    assert now.running() == {("a", 1, 10), ("b", 1, 11)}
    with path.open("a") as file:
        file.write("a 1 1 w 10 1.2 end\nc 2 1 w 12 1.3 sta")
    assert now.running() == {("b", 1, 11)}
    with path.open("a") as file:
        file.write("rt\nb 1 1 w 11 1.4 raised\n")
    assert now.running() == {("c", 2, 12)}
