"""`m dev`: one command, separate processes, one ready line, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.desk import Desk, descendants, exists, interrupt
from tests.servers import free_port
from worker.process.dev import Watcher
from worker.process.nats_server import running_url


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A running desk that the tests may look at, and hurt as long as it heals."""
    with Desk(tmp_path_factory.mktemp("shared")) as desk:
        desk.dev()
        yield desk


def test_it_ends_in_a_ready_line_with_web_worker_and_nats_server_as_processes(shared: Desk) -> None:
    (dev,) = shared.processes
    lines = dev.output().splitlines()
    assert f"M Desk is ready at {dev.base}" in lines
    assert any("first administrator" in line and f"{dev.base}/set" in line for line in lines), (
        "no set-up link"
    )
    with urllib.request.urlopen(f"{dev.base}/healthz", timeout=30) as answer:
        assert answer.status == 200
    programs = commands_below(dev.pid)
    for part in ("nats-server -c", "-m webapp", "worker.cli worker"):
        assert any(part in program for program in programs), programs
    assert (shared.home / "desk.db").exists()
    assert running_url(shared.home)


def test_a_second_desk_in_the_same_home_is_refused(shared: Desk) -> None:
    done = shared.m("dev", "--port", str(free_port()))
    assert done.returncode == 78
    assert str(shared.home) in done.stderr


@pytest.mark.parametrize("part", ["nats-server -c", "-m webapp", "worker.cli worker"])
def test_a_part_that_crashes_is_started_again(shared: Desk, part: str) -> None:
    (dev,) = shared.processes
    broker = running_url(shared.home)
    (victim,) = matching(dev.pid, part)
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: matching(dev.pid, part) not in ([], [victim]))
    assert eventually(lambda: shared.ready(dev))
    assert eventually(lambda: running_url(shared.home) == broker), "the broker's address has changed"
    assert "starts again" in dev.output()


def test_asked_to_stop_it_ends_with_zero_and_leaves_nothing(desk: Desk) -> None:
    dev = desk.dev()
    below = descendants(dev.pid)
    assert len(below) >= 3
    assert dev.stop() == 0
    assert [pid for pid in below if exists(pid)] == []


def test_killed_it_leaves_nothing_and_starts_again(desk: Desk) -> None:
    dev = desk.dev()
    below = descendants(dev.pid)
    dev.kill()
    assert eventually(lambda: not any(exists(pid) for pid in below))
    assert running_url(desk.home) is None
    again = desk.dev()
    assert desk.call("GET", "/api/v1/jobs", base=again.base)[0] == 200


def test_a_taken_port_is_named_with_what_to_do(desk: Desk) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = desk.m("dev", "--port", str(port))
    assert done.returncode == 78
    (line,) = done.stderr.strip().splitlines()
    assert str(port) in line
    assert "--port" in line


def test_job_modules_that_cannot_be_imported_end_it(desk: Desk) -> None:
    done = desk.m("dev", "--port", str(free_port()), "--jobs", "no_such_module")
    assert done.returncode == 78
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr


def test_in_memory_it_is_one_web_process_and_ctrl_c_ends_it(desk: Desk) -> None:
    dev = desk.dev("--memory")
    assert not any(
        "nats-server" in program or "worker.cli worker" in program for program in commands_below(dev.pid)
    )
    interrupt(dev)
    assert dev.popen.wait(60) == 0


def test_with_reload_an_edit_starts_the_worker_again(desk: Desk, tmp_path: Path) -> None:
    module = tmp_path / "edited_jobs.py"
    module.write_text("from worker import job\n\n@job\ndef first() -> None: ...\n")
    desk.jobs = "edited_jobs"
    desk.environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    dev = desk.dev("--reload")
    before = matching(dev.pid, "worker.cli worker")
    module.write_text("from worker import job\n\n@job\ndef second() -> None: ...\n")
    assert eventually(lambda: matching(dev.pid, "worker.cli worker") not in ([], before), within_s=60)
    assert "edited_jobs.py changed" in dev.output()


def test_the_watcher_sees_edits_new_files_and_removals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "watched_jobs"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    watcher = Watcher(["watched_jobs.mail"])
    assert watcher.changed() is None
    new = package / "mail.py"
    new.write_text("one")
    assert watcher.changed() == new
    os.utime(new, (1, 1))
    assert watcher.changed() == new
    new.unlink()
    assert watcher.changed() == new
    assert watcher.changed() is None


def commands_below(pid: int) -> list[str]:
    return [command(child) for child in descendants(pid)]


def matching(pid: int, part: str) -> list[int]:
    """The direct children of `pid` whose command line holds `part`."""
    children = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    direct = [int(line.split()[0]) for line in children if line.split()[1:] == [str(pid)]]
    return [child for child in direct if part in command(child)]


def command(pid: int) -> str:
    return subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()


def eventually(condition: Callable[[], bool], within_s: float = 60) -> bool:
    end = time.monotonic() + within_s
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return met
