"""The process that forks the supervisor's children, and the one beside each worker child that forks the jobs' own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.site import below
from tests.worker.process.harness import ROOT, Workers, alive
from worker.db.base import new_id
from worker.joblogs.models import JobAttempt
from worker.process import fork_server, forking
from worker.process.entry import CONFIGURATION, Orders
from worker.process.fork_server import CLERK, WORKER, Forked, ForkServer, ForkServerGone

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="there is one on Linux only"),
]


def named(root: int, name: str) -> list[int]:
    """Which processes below this one call themselves so; one that ends meanwhile is left out."""
    found = []
    for pid in below(root):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def orders() -> str:
    return Orders(str(new_id()), str(new_id()), os.getpid()).words()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Iterator[ForkServer]:
    """In a home where a worker child ends at once: its job module is not there. A clerk lives until it is stopped."""
    for name in ("NATS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("M_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("M_JOB_MODULES", "nowhere.to.be.found")
    server = ForkServer()
    yield server
    server._process.send_signal(signal.SIGCONT)
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
    open_files = {each.name: str(each.readlink()) for each in Path(f"/proc/{child.pid}/fd").iterdir()}
    assert open_files["0"] == "/dev/null"
    assert sum(name.startswith("pipe:") for name in open_files.values()) == 1


def test_a_child_hears_what_it_is_told_in_its_first_moment(server: ForkServer) -> None:
    for _ in range(20):
        child = server.fork(CLERK, orders())
        child.terminate()
        child.stdout.close()
        assert child.wait() in (-signal.SIGTERM, 0)


def test_one_that_answers_too_late_is_asked_no_more_and_what_it_has_lives_on(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = frozen(server)
    pid = server._process.pid
    os.kill(pid, signal.SIGSTOP)
    server._patience_s = 0.1
    with pytest.raises(ForkServerGone):
        server.fork(CLERK, orders())
    assert not server.forks
    assert alive(child.pid)
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 30
    while named(pid, "m-clerk") != [child.pid] or len(below(pid)) > 1:
        assert time.monotonic() < end, "the late child lives"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_the_end_of_a_child_is_known_although_its_fork_server_says_nothing(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "TOLD_WITHIN_S", 0.1)
    child = frozen(server)
    os.kill(server._process.pid, signal.SIGSTOP)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


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
    assert not server.forks
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
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=3)
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


SERVES = """
import os, sys, socket, threading, time
from worker.process import forking
refused = [1, 0]
fork = os.fork

def once_refused():
    if refused and refused.pop(0):
        raise BlockingIOError
    return fork()

def become(message, passed):
    if message == "orphan" and fork():
        os._exit(7)
    time.sleep(0.2)

if sys.argv[1] == "refused":
    os.fork = once_refused
if sys.argv[1] == "threads":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
forking.serve(socket.socket(fileno=int(sys.argv[2])), become)
"""


def serving(how: str, *messages: str) -> tuple[list[list[int | None]], int]:
    """What a process that serves says to these messages, and its exit code."""
    ours, theirs = forking.line()
    command = [sys.executable, "-c", SERVES, how, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT) as process:
        theirs.close()
        for message in messages:
            socket.send_fds(ours, [message.encode()], [0])
        ours.shutdown(socket.SHUT_WR)
        said = []
        while words := ours.recv(forking.LONGEST_MESSAGE):
            said.append(json.loads(words))
    return said, process.returncode


def test_a_fork_that_the_system_refuses_is_told_and_ends_nothing() -> None:
    (refused, forked, ended), code = serving("refused", "one", "two")
    assert (refused, code) == ([0, None], 0)
    assert forked[0]
    assert ended == [forked[0], 1]


def test_the_orphans_of_a_child_are_told_to_nobody() -> None:
    (forked, ended), code = serving("orphans", "orphan")
    assert (ended, code) == ([forked[0], 7], 0)


def test_a_process_with_threads_does_not_fork() -> None:
    assert serving("threads") == ([], forking.UNFIT)


async def test_where_an_agent_starts_threads_children_are_programs_of_their_own(
    tmp_path: Path, sqlite_workers: Workers
):
    agent = tmp_path / "agent"
    agent.mkdir()
    (agent / "sitecustomize.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(999,), daemon=True).start()\n"
    )
    sqlite_workers.environ["PYTHONPATH"] = str(agent)
    workers = await sqlite_workers.start()
    assert workers.process is not None
    job_id = await workers.enqueue("add", a=1)
    assert (await workers.job(job_id)).status == "success"
    assert named(workers.process.pid, "m-fork-server") == []
    assert workers.log().count("The fork server does not fork") == 1


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


async def test_jobs_that_die_together_with_their_job_server_are_not_to_blame(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    jobs = [await workers.enqueue("mark_in_process", path=str(workers.witness), seconds=4) for _ in range(2)]
    await workers.witness_of("start", 2)
    [server] = named(workers.process.pid, "m-job-server")
    os.kill(server, signal.SIGKILL)
    rows = [await workers.job(job_id) for job_id in jobs]
    assert [(row.status, row.lost_count, row.died_alone) for row in rows] == [("success", 0, 0)] * 2
    assert len(await workers.witness_of("start")) == 4


async def test_a_job_server_that_is_killed_costs_what_it_runs_and_the_next_ones_start_without_it(
    sqlite_workers: Workers,
):
    workers = await sqlite_workers.start()
    assert workers.process is not None
    job_id = await workers.enqueue("mark_in_process", path=str(workers.witness), seconds=4)
    await workers.witness_of("start")
    [server] = named(workers.process.pid, "m-job-server")
    os.kill(server, signal.SIGKILL)
    row = await workers.job(job_id)
    assert (row.status, row.died_alone) == ("success", 1)
    assert len(await workers.witness_of("start")) == 2
