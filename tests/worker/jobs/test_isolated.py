"""A job in a process of its own, spoken to as its worker does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.worker.process.harness import alive
from worker.db.base import new_id, utc_now

JOBS = """
import logging, os, subprocess, sys, time
from worker import Discard, JobContext, Retry, RetryPolicy, Secret, job

@job(isolation="process")
def plain(ctx: JobContext, n: int, key: Secret[str] = "k") -> dict:
    print("to the terminal")
    ctx.progress(0.5, "half")
    ctx.log("a line")
    logging.getLogger("mine").warning("standard %s", "line")
    assert sys.stdin.read() == ""
    return {"n": n, "pid": os.getpid(), "key": key.reveal(), "id": str(ctx.job_id), "saved": ctx.saved}

@job(isolation="process")
async def waits(ctx: JobContext) -> int:
    await ctx.progress(0.25)
    return ctx.attempt

@job(isolation="process", retry=RetryPolicy(3, discard_on=(KeyError,)))
def fails(how: str) -> object:
    if how == "retry": raise Retry(after=7, error=ValueError("later"))
    if how == "discard": raise Discard("never")
    if how == "named": raise KeyError("x")
    if how == "exit": raise SystemExit(3)
    if how == "odd": return object()
    if how == "die": os._exit(9)
    if how == "sleep": time.sleep(60)
    if how == "wait":
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(other.pid, flush=True)
        other.wait()
    raise ValueError("plain wrong")
"""


class Child:
    """The process, and the other end of its pipes."""

    def __init__(self, folder: Path) -> None:
        self.environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "M_HOME": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.jobs.isolated"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=folder, env=self.environ,
        )  # fmt: skip

    def order(self, job_name: str, args: dict[str, Any], modules: tuple[str, ...] = ("own_jobs",)) -> None:
        now = utc_now().isoformat()
        claimed = {
            "id": str(new_id()), "queue": "default", "priority": 5, "attempt": 2, "max_retries": 3, "timeout_s": 60,
            "epoch": 4, "rev": 9, "enqueued_at": now, "run_at": now, "started_at": now, "user_id": None,
            "checkpoint": {"at": 3}, "correlation_id": None, "caused_by": None,
        }  # fmt: skip
        order = {
            "environ": self.environ, "modules": modules, "job_name": job_name, "args": args,
            "worker_id": str(new_id()), "claimed": claimed,
        }  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def says(self) -> list[dict[str, Any]]:
        """Every line until it ends; its stdin stays open."""
        assert self.process.stdout is not None
        lines = [json.loads(line) for line in self.process.stdout]
        self.process.wait(30)
        return lines

    def ended(self) -> dict[str, Any]:
        return self.says()[-1]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    (tmp_path / "own_jobs.py").write_text(dedent(JOBS), encoding="utf-8")
    child = Child(tmp_path)
    yield child
    child.process.kill()
    child.process.wait(30)
    for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
        if pipe is not None:
            pipe.close()


def test_a_plain_function_runs_and_says_how_it_goes(child: Child) -> None:
    child.order("plain", {"n": 3, "key": "hush"})
    lines = child.says()
    assert lines[:-1] == [
        {"progress": [0.5, "half"]},
        {"log": ["info", "a line", None]},
        {"log": ["warning", "standard line", "mine"]},
    ]
    result = lines[-1]["result"]
    assert (result["n"], result["key"], result["saved"]) == (3, "hush", {"at": 3})
    assert result["pid"] == child.process.pid
    assert child.process.stderr is not None
    assert b"to the terminal" in child.process.stderr.read()


def test_an_async_function_runs_in_a_loop_of_its_own(child: Child) -> None:
    child.order("waits", {})
    assert child.says() == [{"progress": [0.25, None]}, {"result": 2}]


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("retry", "retry", "ValueError: later"),
        ("discard", "discard", "never"),
        ("named", "discard", "KeyError: 'x'"),
        ("exit", "error", "SystemExit: 3"),
        ("odd", "unstorable", "of type object"),
        ("plain", "error", "ValueError: plain wrong"),
    ],
)
def test_how_it_fails_is_said(child: Child, how: str, kind: str, text: str) -> None:
    child.order("fails", {"how": how})
    said = child.ended()
    assert said["kind"] == kind
    assert text in said["error"]
    if how == "retry":
        assert said["after_s"] == 7
    if how == "plain":
        assert "in fails" in said["traceback"]
        assert "isolated.py" not in said["traceback"]


def test_a_death_says_nothing(child: Child) -> None:
    child.order("fails", {"how": "die"})
    assert child.says() == []
    assert child.process.returncode == 9


def test_a_job_that_is_not_there_is_named(child: Child) -> None:
    child.order("gone", {})
    assert "'gone'" in child.ended()["error"]


def test_it_does_not_outlive_its_parent(child: Child) -> None:
    child.order("fails", {"how": "sleep"})
    time.sleep(0.5)
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.process.wait(20) in (1, -signal.SIGKILL)


def test_what_it_has_started_does_not_outlive_its_parent_either(child: Child) -> None:
    child.order("fails", {"how": "wait"})
    assert child.process.stderr is not None
    other = int(child.process.stderr.readline())
    assert child.process.stdin is not None
    child.process.stdin.close()
    child.process.wait(20)
    for _ in range(400):
        if not alive(other):
            return
        time.sleep(0.05)
    raise AssertionError(f"{other} goes on")
