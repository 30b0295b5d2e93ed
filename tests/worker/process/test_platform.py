"""Started processes end with whoever started them, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.desk import exists
from worker.process import platform

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = """
import sys, time
from worker.process import platform
child = platform.spawn([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
CALLER = """
import multiprocessing, os, time
from worker.process import platform
def work(parent):
    platform.die_with_parent(parent)
    print(os.getpid(), flush=True)
    time.sleep(60)
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work, args=(os.getpid(),))
    child.start()
    child.join()
"""


@pytest.mark.parametrize("script", [PARENT, CALLER], ids=["spawn", "die_with_parent"])
def test_a_child_ends_when_its_parent_is_killed(script: str, tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(script)
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=importing())
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_a_child_whose_parent_is_already_gone_does_not_start() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    command = platform.guarded([sys.executable, "-c", "print('ran')"])
    command[command.index(str(os.getpid()))] = str(ended.pid)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ran" not in done.stdout


def test_ctrl_c_in_the_terminal_does_not_reach_a_spawned_child() -> None:
    child = platform.spawn(SLEEPER)
    assert os.getsid(child.pid) != os.getsid(0)
    platform.kill_tree(child)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.skipif(not platform.LINUX, reason="only Linux tells the processes of a session")
def test_killing_a_tree_reaches_the_groups_in_the_childs_session() -> None:
    start = f"print(subprocess.Popen({SLEEPER!r}, process_group=0).pid, flush=True)"
    child = platform.spawn(
        [sys.executable, "-c", f"import subprocess, time; {start}; time.sleep(60)"], output=subprocess.PIPE
    )
    assert child.stdout
    grandchild = int(child.stdout.readline())
    platform.kill_tree(child)
    child.stdout.close()
    assert gone(grandchild)


def test_killing_a_tree_reaches_what_the_child_started() -> None:
    script = f"import subprocess, time; print(subprocess.Popen({SLEEPER!r}).pid, flush=True); time.sleep(60)"
    child = platform.spawn([sys.executable, "-c", script], output=subprocess.PIPE)
    assert child.stdout
    grandchild = int(child.stdout.readline())
    platform.kill_tree(child)
    child.stdout.close()
    assert child.stderr is None, "a pipe that nobody reads or closes"
    assert gone(grandchild)


def test_a_lock_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = f"""
import time
from pathlib import Path
from worker.process import platform
with platform.locked(Path({str(path)!r})) as free:
    print(free, flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=importing())
    assert holder.stdout
    assert holder.stdout.readline().strip() == b"True"
    with platform.locked(path) as free:
        assert not free
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with platform.locked(path) as free:
        assert free


def test_a_private_file_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "url"
    platform.write_private(path, "one")
    platform.write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o077 == 0
    assert [file.name for file in path.parent.iterdir()] == ["url"]


def importing() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def gone(pid: int, within_s: float = 30) -> bool:
    end = time.monotonic() + within_s
    while exists(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not exists(pid)
