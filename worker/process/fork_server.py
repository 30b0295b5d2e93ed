"""The fork server: it has loaded what the supervisor's children need, and starts one in a fraction of the time.

`ForkServer` is the supervisor's side. The process itself is `python -m worker.process.fork_server`, on Linux only. It loads no job
module: each child does that itself, so a rolling restart runs new code, and what a module starts at its import is not forked.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import socket
import sys
import threading
from dataclasses import dataclass, field
from typing import IO

from worker.process import forking, platform
from worker.process.entry import begin

WORKER, CLERK = "worker.process.child", "worker.process.clerk"
ISOLATED = "worker.jobs.isolated"
NAMES = {WORKER: "m-worker", CLERK: "m-clerk"}
ANSWER_S = 20.0
"""The first answer waits for the imports, on a busy machine."""


class ForkServerGone(Exception):
    """It has ended, or does not answer. Its children end with it."""


@dataclass(eq=False)
class Forked:
    """A child that the fork server started, as `subprocess.Popen` would show it."""

    pid: int
    stdout: IO[bytes]
    returncode: int | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> int:
        """The exit code, negative for a signal; known once the fork server has told it."""
        self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


class ForkServer:
    """Starts the process; call it from the main thread, with whose end the process ends."""

    def __init__(self) -> None:
        self._line, theirs = forking.line()
        with theirs:
            self._process = platform.spawn([sys.executable, "-m", __name__], source=theirs.fileno())
        self._outputs: queue.SimpleQueue[IO[bytes]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Forked | None] = queue.SimpleQueue()
        self._children: dict[int, Forked] = {}
        self._reader = threading.Thread(target=self._read, name="fork server", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._reader.is_alive()

    def fork(self, module: str, words: str) -> Forked:
        """Runs `module`'s `run` in a new process with the orders `words`; its standard output is the caller's to read.

        Raises:
            ForkServerGone: it did not answer, and has been ended.
        """
        ours, theirs = os.pipe()
        output = os.fdopen(ours, "rb")
        self._outputs.put(output)
        child = None
        try:
            socket.send_fds(self._line, [json.dumps([module, words]).encode()], [theirs])
            child = self._answers.get(timeout=ANSWER_S)
        except (OSError, queue.Empty):
            platform.kill_now(self._process)
        finally:
            os.close(theirs)
        if child is None:
            output.close()
            raise ForkServerGone
        return child

    def retire(self) -> None:
        """It forks no more and ends when its last child has."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while message := self._line.recv(forking.LONGEST_MESSAGE):
                self._heard(*json.loads(message))
        self._process.wait()
        for child in self._children.values():  # the kernel ends them with their parent
            child.ended(-signal.SIGKILL)
        self._answers.put(None)
        self._line.close()

    def _heard(self, pid: int, code: int | None) -> None:
        if code is None:
            self._children[pid] = child = Forked(pid, self._outputs.get())
            self._answers.put(child)
        else:
            self._children.pop(pid).ended(code)


# The process itself


def main() -> None:
    """From the imports to the end of the last child."""
    forking.ignore_what_is_not_meant()
    with socket.socket(fileno=os.dup(0)) as line:
        _read_nothing()
        for module in (WORKER, CLERK, ISOLATED):
            importlib.import_module(module)
        forking.call_itself("m-fork-server")
        forking.serve(line, become_child)


def become_child(message: str, output: int) -> None:
    """What `python -m MODULE WORDS` in a session of its own would be."""
    module, words = json.loads(message)
    os.setsid()
    if module == WORKER:
        _start_job_server(output)
    os.dup2(output, 1)
    os.close(output)
    forking.call_itself(NAMES[module])
    begin(importlib.import_module(module).run, words, os.getppid())


def _start_job_server(output: int) -> None:
    """One more process beside a worker child, to fork the processes of `isolation="process"`; forked now, while there is no thread."""
    from worker.joblogs import isolation
    from worker.jobs import isolated

    ours, theirs = forking.line()
    worker = os.getpid()
    if os.fork():
        theirs.close()
        isolation.server = isolation.JobServer(ours)
        return
    try:
        ours.close()
        os.close(output)
        forking.ignore_what_is_not_meant()
        platform.die_with_parent(worker)
        forking.call_itself("m-job-server")
        forking.serve(theirs, isolated.become)
    finally:
        os._exit(0)


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


if __name__ == "__main__":
    main()
