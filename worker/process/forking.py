"""A process without threads that forks others on request: the loop it runs, the line on which it is asked, and what it forked.

One request is a message with one descriptor. Answers are `[pid, null]` for a process that was forked, `[0, null]` where the system
refused, and `[pid, exit code]`, negative for a signal, for one that has ended, in the order in which that happened. Linux only:
messages stay whole, and what was forked dies with the process that forked it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from worker.process import platform

LONGEST_MESSAGE = 65_536
NAME_LENGTH = 15
"""What Linux keeps of a process's name."""
NOT_MEANT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""A service manager sends a supervisor's signals to all processes at once; those that drain need their parent."""
UNFIT = 3
"""Exit code of a process that has threads, such as an agent starts: what they hold would stay held in what is forked."""
_PR_SET_CHILD_SUBREAPER = 36

Become = Callable[[str, int], object]
"""What a forked process does with the message and the descriptor. It need not return: the process ends with it."""


class Grip:
    """A process that another one forked, held so that its number cannot come to mean a third. Any thread may use it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._over = False
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._over = True
        except OSError:  # a kernel before 5.3, or a sandbox: then the number has to do
            pass

    def fileno(self) -> int | None:
        """Becomes readable when the process has ended; None where that cannot be had."""
        return self._descriptor

    def send_signal(self, number: int) -> None:
        """To nobody, once it has ended."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif not self._over:
                os.kill(self.pid, number)

    def wait(self) -> None:
        """Until it has ended, where that can be had."""
        if self._descriptor is not None:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            poll.poll()

    def let_go(self) -> None:
        """It has ended."""
        with self._lock:
            self._over = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def line() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def prepare(name: str) -> None:
    """First thing in the process that will fork."""
    signal.pthread_sigmask(signal.SIG_BLOCK, NOT_MEANT)
    call_itself(name)


def serve(line: socket.socket, become: Become) -> None:
    """Until the other end is closed and the last child has ended."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.exit(UNFIT)
    ctypes.CDLL(None).prctl(
        _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
    )  # children of children do not stay as zombies of others
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(line, select.POLLIN)
    me, asked, living = os.getpid(), True, set[int]()
    while asked or living:
        for descriptor, _ in poll.poll():
            if descriptor == woken:
                os.read(woken, 512)
                continue
            message, passed, _, _ = socket.recv_fds(line, LONGEST_MESSAGE, 1)
            if not message:
                asked = False
                poll.unregister(line)
                continue
            pid = _fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for mine in (line.detach(), woken, wake):
                    os.close(mine)
                _be(become, message.decode(), passed[0], me)
            os.close(passed[0])
            if pid:
                living.add(pid)
            _tell(line, pid or 0, None)
        _reap(line, living)


def call_itself(name: str) -> None:
    """For `ps` and `top`, which would show them all alike."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:NAME_LENGTH])


def _fork() -> int | None:
    """0 in the child; None if there may be no more processes, or there is no memory for one."""
    try:
        return os.fork()
    except OSError:
        return None


def _reap(line: socket.socket, living: set[int]) -> None:
    """Tells of each that has ended; those that came here because their own parent ended are nobody's concern."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] in living:
                living.remove(ended[0])
                _tell(line, ended[0], os.waitstatus_to_exitcode(ended[1]))


def _tell(line: socket.socket, pid: int, code: int | None) -> None:
    with contextlib.suppress(OSError):  # whoever asked is gone, and so is this process in a moment
        line.send(json.dumps([pid, code]).encode())


def _be(become: Become, message: str, passed: int, parent: int) -> None:
    """As a new program it would have its signals; and no way back into the loop. What was sent to it meanwhile arrives now."""
    try:
        platform.die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_MEANT)
        become(message, passed)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
