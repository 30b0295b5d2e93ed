"""Whoever has stopped doing its work ends with an exit code and a line: it does not stay as if it worked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.servers.nats import NatsServer
from tests.worker.process import sample_jobs
from tests.worker.process.harness import ROOT
from tests.worker.process.test_inline_and_clerk import status
from worker.db.base import new_id, utc_now
from worker.engine import Engine
from worker.jobs.registry import Registry
from worker.process import presence
from worker.process.entry import FAILED, Orders
from worker.process.inline import InlineWorker
from worker.settings import Settings

WITHIN_S = 30
A_CLERK = """
import asyncio, sys
from worker.process import clerk
from worker.process.entry import begin

async def cancels_itself():
    raise asyncio.CancelledError

clerk.loops = lambda *_: [clerk.Loop("broken", 60.0, cancels_itself)]
begin(clerk.run, sys.argv[1])
"""
A_WORKER = """
import sys
from worker.process.child import WorkerChild, run
from worker.process.entry import begin
from worker.queue.receiver import JobReceiver

async def breaks(self):
    raise RuntimeError("broken")

{} = breaks
begin(run, sys.argv[1])
"""
A_SUPERVISOR = """
import sys
from worker.process.supervisor import Supervisor, run_supervisor
from worker.settings import Settings

beats = Supervisor._beats

def breaks(self):
    said = beats(self)
    if len(said) == 2:
        raise RuntimeError("broken")
    return said

Supervisor._beats = breaks
sys.exit(run_supervisor(Settings.from_env(), processes=1))
"""


def ends(program: str, environ: dict[str, str]) -> tuple[int, str]:
    """Its exit code and what it said."""
    orders = Orders(str(new_id()), str(new_id()), os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-c", program, orders.words()],
        cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        pytest.fail(f"it goes on; it said:\n{said}")
    return process.returncode, said


@pytest.fixture
def environ(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "M_HOME": str(tmp_path / "home"),
        "M_JOB_MODULES": "tests.worker.process.sample_jobs",
        "NATS_URL": "",
        "REDIS_URL": "",
    }


def test_a_clerk_ends_when_one_of_its_loops_has_ended(environ: dict[str, str]) -> None:
    code, said = ends(A_CLERK, environ)
    assert code == FAILED
    assert "This process ends because of an error" in said
    assert "broken" in said


@pytest.mark.parametrize(
    "part",
    [
        "JobReceiver._hear",
        "JobReceiver._polls",
        "JobReceiver._reconciles",
        "WorkerChild.advertises",
        "WorkerChild._says",
    ],
)
def test_a_worker_ends_when_one_of_its_loops_has_ended(environ: dict[str, str], part: str) -> None:
    code, said = ends(A_WORKER.format(part), environ)
    assert code == FAILED
    assert "This process ends because of an error" in said
    assert "RuntimeError: broken" in said


def test_a_supervisor_ends_with_its_children_when_its_beat_has_ended(
    environ: dict[str, str], nats_server: NatsServer
) -> None:
    code, said = ends(A_SUPERVISOR, {**environ, "NATS_URL": nats_server.url, "M_PREFIX": "endsunasked"})
    assert code == FAILED
    assert "RuntimeError: broken" in said
    assert "The supervisor has stopped" in said


# Inside a web process, which goes on, what has ended begins anew


@pytest.fixture
async def engine(environ: dict[str, str]) -> AsyncIterator[Engine]:
    settings = Settings.from_env({**environ, "M_LEASE_S": "1"})
    async with Engine.create(settings, registry=Registry([sample_jobs.add])) as engine:
        yield engine


@pytest.fixture
async def inline(engine: Engine) -> AsyncIterator[InlineWorker]:
    inline = InlineWorker()
    await inline.start(engine)
    yield inline
    await inline.stop()


@pytest.mark.parametrize("part", ["inline worker", "inline clerk"])
@pytest.mark.usefixtures("inline")
async def test_a_part_of_an_inline_worker_that_has_ended_begins_anew(engine: Engine, part: str) -> None:
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == part]
    task.cancel()
    await asyncio.wait({task})
    soon = utc_now() + timedelta(seconds=0.5)
    job_id = await engine.enqueue("add", {"a": 1}, run_at=soon)
    assert await status(engine, job_id, "success")


@pytest.mark.usefixtures("inline")
async def test_an_inline_worker_goes_on_beating_after_an_error_of_any_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, beaten = 0, asyncio.Event()

    async def broken(*_: object) -> dict[UUID, str]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("broken")
        beaten.set()
        return {}

    monkeypatch.setattr(presence, "beat", broken)
    async with asyncio.timeout(WITHIN_S):
        await beaten.wait()
