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
import subprocess
import sys
import threading
import traceback
from typing import IO

from worker.process import forking, platform
from worker.process.entry import begin

WORKER, CLERK = "worker.process.child", "worker.process.clerk"
ISOLATED = "worker.jobs.isolated"
NAMES = {WORKER: "m-worker", CLERK: "m-clerk"}
FIRST_ANSWER_S, ANSWER_S = 20.0, 5.0
"""The first answer waits for the imports, on a busy machine."""
TOLD_WITHIN_S = 5.0
"""A fork server that works tells an exit code at once."""
ENDS_WITHIN_S = 1.0


class ForkServerGone(Exception):
    """It has ended, refuses, or does not answer."""


class Forked:
    """A child that the fork server started, as `subprocess.Popen` would show it."""

    def __init__(self, pid: int, stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._grip = forking.Grip(pid)
        self._told = threading.Event()

    def wait(self) -> int:
        """The exit code, negative for a signal; known once the fork server has told it, or is no more."""
        self._grip.wait()
        self._told.wait(TOLD_WITHIN_S if self._grip.fileno() is not None else None)
        self._grip.let_go()
        self.ended(-signal.SIGKILL)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        self._grip.send_signal(number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def ended(self, code: int) -> None:
        """What is told first counts."""
        if self.returncode is None:
            self.returncode = code
        self._told.set()


class ForkServer:
    """Starts the process; call it from the main thread, with whose end the process ends."""

    def __init__(self) -> None:
        self._line, theirs = forking.line()
        with theirs:
            self._process = platform.spawn([sys.executable, "-m", __name__], source=theirs.fileno())
        self._outputs: queue.SimpleQueue[IO[bytes]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Forked | None] = queue.SimpleQueue()
        self._children: dict[int, Forked] = {}
        self._patience_s = FIRST_ANSWER_S
        self._retired = False
        self._reader = threading.Thread(target=self._read, name="fork server", daemon=True)
        self._reader.start()

    @property
    def forks(self) -> bool:
        """Whether it may be asked."""
        return self._reader.is_alive() and not self._retired

    @property
    def unfit(self) -> bool:
        """Whether another one would not work either."""
        return self._process.returncode == forking.UNFIT

    def fork(self, module: str, words: str) -> Forked:
        """Runs `module`'s `run` in a new process with the orders `words`; its standard output is the caller's to read.

        Raises:
            ForkServerGone: it did not fork. One that did not answer is asked no more; children that it has live on.
        """
        ours, theirs = os.pipe()
        self._outputs.put(os.fdopen(ours, "rb"))
        child = None
        try:
            socket.send_fds(self._line, [json.dumps([module, words]).encode()], [theirs])
            child = self._answers.get(timeout=self._patience_s)
        except (OSError, queue.Empty):
            self.retire()
        finally:
            os.close(theirs)
        if child is None:
            if not self._reader.is_alive():
                self._close_outputs()
            raise ForkServerGone
        self._patience_s = ANSWER_S
        return child

    def retire(self) -> None:
        """It forks no more and ends when its last child has."""
        self._retired = True
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Retires it and waits a moment for its end: nothing of a supervisor outlives it."""
        self.retire()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN_S)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while message := self._line.recv(forking.LONGEST_MESSAGE):
                self._heard(*json.loads(message))
        self._process.wait()
        for child in self._children.values():  # the kernel ends them with their parent
            child.ended(-signal.SIGKILL)
        self._answers.put(None)
        self._line.close()
        self._close_outputs()

    def _close_outputs(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._outputs.get_nowait().close()

    def _heard(self, pid: int, code: int | None) -> None:
        if code is not None:
            self._children.pop(pid).ended(code)
            return
        output, child = self._outputs.get(), None
        if pid:
            self._children[pid] = child = Forked(pid, output)
        if child is None or self._retired:  # refused; or too late, and nobody waits for it any more
            output.close()
        if child is not None and self._retired:
            child.send_signal(signal.SIGKILL)
        self._answers.put(child)


# The process itself


def main() -> None:
    """From the imports to the end of the last child."""
    forking.prepare("m-fork-server")
    with socket.socket(fileno=os.dup(0)) as line:
        _read_nothing()
        for module in (WORKER, CLERK, ISOLATED):
            importlib.import_module(module)
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
    if pid := os.fork():
        theirs.close()
        isolation.server = isolation.JobServer(ours, pid)
        return
    try:
        ours.close()
        os.close(output)
        platform.die_with_parent(worker)
        forking.prepare("m-job-server")
        forking.serve(theirs, isolated.become)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _read_nothing() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


if __name__ == "__main__":
    main()
