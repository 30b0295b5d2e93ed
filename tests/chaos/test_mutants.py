"""The gate: an engine that lacks a guard must turn a scenario red, or the scenarios are worth nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.conftest import SEED
from tests.chaos.mutants import MUTANTS, PARTS, ROOT, Mutant
from tests.chaos.report import Report
from tests.chaos.site import FULL

RED = 1
"""pytest's exit code for failed tests; a mutant that cannot even be collected proves nothing."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_guard_that_a_mutant_lacks_stands_once_in_the_source(mutant: Mutant) -> None:
    mutant.applied_to(ROOT)


def _caught(mutant: Mutant, tmp_path: Path, report: Report) -> None:
    tree = _mutated(mutant, tmp_path / "tree")
    done = _run(tree, mutant.scenario)
    report.say(
        f"mutant: {mutant.name}",
        "caught" if done.returncode == RED else f"exit code {done.returncode}",
        "caught",
    )
    assert done.returncode == RED, done.stdout[-3000:]
    assert "\nFAILED " in done.stdout, done.stdout[-3000:]


if FULL:  # each costs a scenario
    test_a_mutant_is_caught = pytest.mark.timeout(600)(
        pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)(_caught)
    )


def _mutated(mutant: Mutant, tree: Path) -> Path:
    """A copy of everything that runs, with one edit."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / part)
    for file, source in mutant.applied_to(tree).items():
        file.write_text(source, encoding="utf-8")
    return tree


def _run(tree: Path, scenario: str) -> subprocess.CompletedProcess[str]:
    """The short scenario in the copy, with little patience: what hangs is caught too."""
    environ = {
        **os.environ,
        "CHAOS_SIZE": "short",
        "CHAOS_SEED": str(SEED),
        "CHAOS_PATIENCE": "0.5",
        "PYTHONPATH": str(tree),
        "M_TEST_CACHE": os.environ.get("M_TEST_CACHE", str(ROOT / ".tools" / "test")),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *scenario.split()]
    return subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=500)
