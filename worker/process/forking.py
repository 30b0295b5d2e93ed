"""A process without threads that forks others on request: the loop it runs, and the line on which it is asked.

One request is a message with one descriptor; answers are `[pid, null]` for a process that was forked and `[pid, exit code]`, negative
for a signal, for one that has ended, in the order in which that happened. Linux only: messages stay whole, and what was forked dies
with the process that forked it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

from worker.process import platform

LONGEST_MESSAGE = 65_536
NAME_LENGTH = 15
"""What Linux keeps of a process's name."""
NOT_MEANT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""A service manager sends a supervisor's signals to all processes at once; those that drain need their parent."""

Become = Callable[[str, int], object]
"""What a forked process does with the message and the descriptor. It need not return: the process ends with it."""


def line() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def serve(line: socket.socket, become: Become) -> None:
    """Until the other end is closed and the last child has ended."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(woken, select.POLLIN)
    poll.register(line, select.POLLIN)
    me, asked, living = os.getpid(), True, 0
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
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for mine in (line.detach(), woken, wake):
                    os.close(mine)
                _be(become, message.decode(), passed[0], me)
            os.close(passed[0])
            living += 1
            _tell(line, pid, None)
        living -= _reap(line)


def ignore_what_is_not_meant() -> None:
    """For the process that forks."""
    for number in NOT_MEANT:
        signal.signal(number, signal.SIG_IGN)


def call_itself(name: str) -> None:
    """For `ps` and `top`, which would show them all alike."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:NAME_LENGTH])


def _reap(line: socket.socket) -> int:
    """How many children have ended since."""
    count = 0
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(line, ended[0], os.waitstatus_to_exitcode(ended[1]))
            count += 1
    return count


def _tell(line: socket.socket, pid: int, code: int | None) -> None:
    with contextlib.suppress(OSError):  # whoever asked is gone, and so is this process in a moment
        line.send(json.dumps([pid, code]).encode())


def _be(become: Become, message: str, passed: int, parent: int) -> None:
    """As a new program it would have its signals; and no way back into the loop."""
    try:
        platform.die_with_parent(parent)
        for number in (*NOT_MEANT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(message, passed)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
