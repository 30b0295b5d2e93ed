"""What differs between POSIX and Windows about processes: starting, ending and outliving them.

Standard library only, and runnable as a file: `python -I -S platform.py COMMAND ...` starts a program that dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Protocol

WINDOWS = sys.platform == "win32"
LINUX = sys.platform == "linux"
LOOKS = 100

_PR_SET_PDEATHSIG = 1
_WINDOWS_NEW_PROCESS_GROUP = 0x00000200
_WINDOWS_SYNCHRONIZE = 0x00100000
_WINDOWS_FOREVER = 0xFFFFFFFF


def die_with_parent(parent: int | None = None, signal_number: int = 9) -> None:
    """Ends this process when its parent does, however the parent ends. Call it first thing in the child.

    On Linux the kernel sends `signal_number` when the *thread* that started this process ends, so start such children from
    the main thread. Elsewhere a thread of this process watches the parent. Pass `parent` (the parent's own `os.getpid()`,
    handed down) to also cover a parent that died before this call.
    """
    parent = parent or os.getppid()
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def guarded(command: Sequence[str]) -> list[str]:
    """The command line that runs `command`, any program, as a child that dies with the caller."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def spawn(
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    output: IO[Any] | int | None = None,
    errors: IO[Any] | int | None = None,
    source: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts a guarded child out of reach of the terminal's Ctrl-C: whoever spawns it decides when it stops.

    `output` and `errors` are where the two streams go; `errors` defaults to where `output` does. `source` is its standard input.
    """
    if errors is None and output is not None:
        errors = subprocess.STDOUT  # not `output` again: a second pipe would have no reader
    return subprocess.Popen(
        guarded(command),
        env=environ,
        stdin=source,
        stdout=output,
        stderr=errors,
        start_new_session=not WINDOWS,
        creationflags=_WINDOWS_NEW_PROCESS_GROUP if WINDOWS else 0,
    )


class Killable(Protocol):
    """What has a number and can be killed, whoever started it."""

    @property
    def pid(self) -> int: ...
    def kill(self) -> None: ...


class Running(Protocol):
    """What a process can be asked, whoever started it."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def wait(self) -> int:
        """The exit code, negative for a signal."""
        ...

    def send_signal(self, number: int, /) -> None: ...
    def terminate(self) -> None: ...


def lead_group() -> None:
    """Makes this process the leader of a group, in which what it starts can be found. It stays in its parent's session."""
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):  # it leads a session, and so a group, already
            os.setpgid(0, 0)


def end_group() -> NoReturn:
    """Ends this process at once, and with it what it has started and left in the group that it leads."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def kill_group(process: Killable) -> None:
    """Kills a process that called `lead_group`, and what is left in its group, whether or not it has ended itself.

    One that does not lead a group yet has started nothing. Where there are no groups, it is killed alone.
    """
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def ask_to_stop(process: Running) -> None:
    """SIGTERM, or what stands for it on Windows."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            process.terminate()


def kill_tree(process: Running) -> None:
    """Ends a spawned process and everything that it started and left in its session, at once."""
    kill_now(process)
    process.wait()


def kill_now(process: Running) -> None:
    """As `kill_tree`, without waiting for the end: safe in a signal handler."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # it has no session of its own yet, or any more
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process.send_signal(signal.SIGKILL)
    for _ in range(LOOKS):  # what is stuck in the kernel must not stop whoever looks
        if not (left := _in_session(process.pid)):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _in_session(leader: int) -> list[int]:
    """What lives in this session in groups of its own, such as jobs' processes: only Linux says so.

    Its number means no other session while one of them lives.
    """
    if not LINUX:
        return []
    return [int(path.name) for path in Path("/proc").iterdir() if _session_of(path) == leader]


def _session_of(process: Path) -> int | None:
    """None for one that has ended, and for what is no process."""
    if process.name.isdigit():
        with contextlib.suppress(OSError):
            state, _, _, session = (process / "stat").read_bytes().rpartition(b")")[2].split()[:4]
            return int(session) if state not in (b"Z", b"X") else None
    return None


def on_stop_request(handler: Callable[[], None]) -> None:
    """Calls `handler` on Ctrl-C, SIGTERM, a closed terminal, or Ctrl-Break. Main thread only."""
    for number in (
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
    ):
        signal.signal(number, lambda *_: handler())
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up and signal.getsignal(hang_up) is not signal.SIG_IGN:  # nohup stays nohup
        signal.signal(hang_up, lambda *_: handler())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Holds `path` as a lock while the block runs; yields False when another process holds it. Freed when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        yield _lock(file)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read; a reader meets the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    draft.replace(path)


def _lock(file: IO[Any]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _watch_parent(parent: int) -> None:
    _wait_for_end(parent)
    os._exit(1)


def _guard(parent: int, command: list[str]) -> None:
    """Linux keeps the death signal over exec, so the guard becomes the program. Elsewhere it stays beside it."""
    if LINUX:
        die_with_parent(parent)
        os.execv(command[0], command)  # noqa: S606 # the caller names the program
    process = subprocess.Popen(command)
    on_stop_request(lambda: ask_to_stop(process) if not WINDOWS else None)
    if (patient := getattr(signal, "SIGUSR1", None)) is not None:
        signal.signal(patient, lambda number, _frame: process.send_signal(number))
    threading.Thread(target=_kill_with_parent, args=(parent, process), daemon=True).start()
    sys.exit(process.wait())


def _kill_with_parent(parent: int, process: subprocess.Popen[bytes]) -> None:
    _wait_for_end(parent)
    process.kill()
    os._exit(1)


def _wait_for_end(parent: int) -> None:
    if sys.platform == "win32":
        kernel = ctypes.windll.kernel32
        if handle := kernel.OpenProcess(_WINDOWS_SYNCHRONIZE, False, parent):
            kernel.WaitForSingleObject(handle, _WINDOWS_FOREVER)
    else:
        while os.getppid() == parent:
            time.sleep(0.2)


if __name__ == "__main__":
    _guard(int(sys.argv[1]), sys.argv[2:])
