"""The process that forks the supervisor's children, and the one beside each worker child that forks the jobs' own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.site import below
from tests.worker.process.harness import Workers, alive
from worker.db.base import new_id
from worker.joblogs.models import JobAttempt
from worker.process.entry import CONFIGURATION, Orders
from worker.process.fork_server import CLERK, WORKER, Forked, ForkServer, ForkServerGone

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="there is one on Linux only"),
]


def named(root: int, name: str) -> list[int]:
    """Which processes below this one call themselves so."""
    return [pid for pid in below(root) if Path(f"/proc/{pid}/comm").read_text().strip() == name]


def orders() -> str:
    return Orders(str(new_id()), str(new_id()), os.getpid()).words()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """In a home where a worker child ends at once: its job module is not there."""
    for name in ("DATABASE_URL", "NATS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("M_HOME", str(tmp_path))
    monkeypatch.setenv("M_JOB_MODULES", "nowhere.to.be.found")
    server = ForkServer()
    yield server
    server._process.kill()
    server._reader.join(30)


def frozen(server: ForkServer) -> Forked:
    """A child that stands still where it has become one."""
    child = server.fork(CLERK, orders())
    while Path(f"/proc/{child.pid}/comm").read_text() != "m-clerk\n":
        time.sleep(0.0001)
    child.send_signal(signal.SIGSTOP)
    child.stdout.close()
    return child


def test_a_child_says_why_it_ends_and_its_exit_code_is_known(server: ForkServer) -> None:
    child = server.fork(WORKER, orders())
    with child.stdout as said:
        assert b"nowhere.to.be.found" in said.read()
    assert child.wait() == CONFIGURATION


def test_a_child_that_is_killed_is_told_with_its_signal(server: ForkServer) -> None:
    child = frozen(server)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.terminate()  # nobody, any more


def test_a_child_is_as_a_program_of_its_own_would_be(server: ForkServer) -> None:
    child = frozen(server)
    status = Path(f"/proc/{child.pid}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16)
    assert os.getsid(child.pid) == child.pid
    assert Path(f"/proc/{child.pid}/comm").read_text() == "m-clerk\n"
    assert not ignored & (1 << (signal.SIGTERM - 1))
    streams = [str(Path(f"/proc/{child.pid}/fd/{n}").readlink()) for n in (0, 1)]
    assert [name.split(":")[0] for name in streams] == ["/dev/null", "pipe"]


def test_it_has_one_thread_and_signals_to_all_do_not_end_it(server: ForkServer) -> None:
    frozen(server)
    pid = server._process.pid
    assert len([*Path(f"/proc/{pid}/task").iterdir()]) == 1
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    child = server.fork(WORKER, orders())
    child.stdout.close()
    assert child.wait() == CONFIGURATION


def test_when_it_is_killed_its_children_are_and_it_forks_no_more(server: ForkServer) -> None:
    child = frozen(server)
    server._process.kill()
    assert child.wait() == -signal.SIGKILL
    end = time.monotonic() + 10
    while alive(child.pid):
        assert time.monotonic() < end
    server._reader.join(30)
    assert not server.alive
    with pytest.raises(ForkServerGone):
        server.fork(CLERK, orders())


def test_retired_it_ends_with_its_last_child(server: ForkServer) -> None:
    child = frozen(server)
    server.retire()
    assert server._process.poll() is None
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    server._reader.join(30)
    assert server._process.returncode == 0


async def test_a_fork_server_that_is_killed_costs_its_children_and_is_replaced(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=1)
    await workers.witness_of("start")
    [server] = named(workers.process.pid, "m-fork-server")
    os.kill(server, signal.SIGKILL)
    row = await workers.job(job_id)
    assert (row.status, row.lost_count) == ("success", 1)
    [successor] = named(workers.process.pid, "m-fork-server")
    assert successor != server
    assert await workers.end() == 0
    assert not alive(successor)


async def test_a_rolling_restart_forks_from_what_is_installed_by_then(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    [server] = named(workers.process.pid, "m-fork-server")
    before = await workers.pids()
    workers.process.send_signal(signal.SIGHUP)
    await workers.until(workers.pids, lambda pids: pids and not set(pids) & set(before))

    async def servers() -> list[int]:
        return named(workers.process.pid, "m-fork-server")

    await workers.until(servers, lambda pids: len(pids) == 1 and pids != [server])


async def test_without_a_fork_server_children_are_programs_of_their_own(sqlite_workers: Workers):
    workers = await sqlite_workers.start(forks=False)
    assert workers.process is not None
    assert named(workers.process.pid, "m-fork-server") == []
    job_id = await workers.enqueue("mark_in_process", path=str(workers.witness))
    assert (await workers.job(job_id)).status == "success"
    assert await workers.end() == 0


async def test_a_jobs_own_process_is_forked_and_dies_with_its_worker_at_once(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    job_id = await workers.enqueue("mark_in_process", path=str(workers.witness), seconds=60)
    pid = int((await workers.witness_of("start"))[0][2])
    [server] = named(workers.process.pid, "m-job-server")
    assert pid in below(server)
    os.kill((await workers.pids())[0], signal.SIGSTOP)
    os.kill((await workers.pids())[0], signal.SIGKILL)
    async with asyncio.timeout(10):
        while alive(pid) or alive(server):
            await asyncio.sleep(0.01)
    assert int((await workers.witness_of("start", 2))[1][2]) != pid
    assert (await workers.rows(JobAttempt, JobAttempt.job_id == job_id))[0].outcome == "lost"


async def test_a_job_server_that_is_killed_costs_what_it_runs_and_the_next_ones_start_without_it(
    sqlite_workers: Workers,
):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    job_id = await workers.enqueue("mark_in_process", path=str(workers.witness), seconds=2)
    await workers.witness_of("start")
    [server] = named(workers.process.pid, "m-job-server")
    os.kill(server, signal.SIGKILL)
    row = await workers.job(job_id)
    assert (row.status, row.died_alone) == ("success", 1)
    assert len(await workers.witness_of("start")) == 2
