"""How a child process of the supervisor begins and ends: its orders, its line to the parent, its loop, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import structlog

from worker.errors import BadJobDefinition, DeskError, DuplicateJob, JobModuleError, SettingsError
from worker.logs import log_to_stderr
from worker.process import platform

CONFIGURATION = 78
FAILED = 1
NOBODY_TO_BLAME = (JobModuleError, DuplicateJob, BadJobDefinition, SettingsError)
"""Errors that starting again cannot help against."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the parent tells a child on its command line."""

    worker_id: str
    supervisor_id: str
    parent: int
    concurrency: int = 10
    queues: str = ""
    """As `--queues`; empty means every queue there is."""
    priorities: str = "0-9"
    max_memory_mb: float | None = None
    max_jobs: int | None = None

    def words(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, words: str) -> Orders:
        return cls(**json.loads(words))

    @property
    def id(self) -> UUID:
        return UUID(self.worker_id)


@dataclass(slots=True)
class Line:
    """The child's line to its parent: one JSON object a line. It never waits: what a deaf parent cannot take is dropped."""

    descriptor: int
    rest: bytes = b""

    def say(self, **facts: Any) -> None:
        if not self._write(self.rest):
            return
        self._write(json.dumps(facts, default=str).encode() + b"\n")

    def _write(self, words: bytes) -> bool:
        """Keeps what did not fit, so that no line is torn; answers whether all went out."""
        self.rest = words
        with contextlib.suppress(OSError):
            while self.rest:
                self.rest = self.rest[os.write(self.descriptor, self.rest) :]
        return not self.rest


Main = Callable[[Orders, Line, "Stop"], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Stop:
    """A wish to stop. `patient` means: let everything that runs come to its own end (SIGUSR1: drained, restarted, retired)."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def patient(self) -> bool:
        return not self.hurried.is_set()

    def now(self) -> None:
        self.hurried.set()
        self.event.set()

    def when_done(self) -> None:
        self.event.set()


def begin(main: Main, words: str, parent: int | None = None) -> None:
    """Runs `main` as a child process with the orders `words`, and ends the process; threads that do not stop cannot keep it.

    `parent` is its parent's process id, if that is not the supervisor itself.
    """
    orders = Orders.read(words)
    # Elsewhere a guard stands between, and it is the guard that dies with the supervisor.
    platform.die_with_parent((parent or orders.parent) if platform.LINUX else None)
    line = Line(_take_stdout())
    log_to_stderr()
    collect_less()
    code = _run(main, orders, line)
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def collect_less() -> None:
    """What was imported stays, so it is not searched for garbage; rows and messages come by the hundred and mostly go by themselves."""
    gc.freeze()
    gc.set_threshold(5_000, 20, 20)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _run(main: Main, orders: Orders, line: Line) -> int:
    log = structlog.get_logger(__name__)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_main(main, orders, line))
    except NOBODY_TO_BLAME as error:
        log.error(error.message)  # noqa: TRY400 # the message says what to do; a traceback would bury it
        line.say(failed=error.message, code=CONFIGURATION)
        return CONFIGURATION
    except DeskError as error:
        log.error(error.message)  # noqa: TRY400 # as above
        return FAILED
    except Exception:
        log.exception("This process ends because of an error")
        return FAILED
    return 0


async def _main(main: Main, orders: Orders, line: Line) -> None:
    stop = Stop()
    _on_signal("SIGTERM", stop.now)
    _on_signal("SIGBREAK", stop.now)
    _on_signal("SIGUSR1", stop.when_done)
    await main(orders, line, stop)


def _on_signal(name: str, handler: Callable[[], None]) -> None:
    """A handler of the loop: a plain one would not wake an idle loop without uvloop."""
    number = getattr(signal, name, None)
    if number is None:
        return
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, handler)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(handler))


def _take_stdout() -> int:
    """The pipe to the parent is moved away from fd 1, so that a `print` in a job goes to stderr and not into it."""
    pipe = os.dup(1)
    with contextlib.suppress(OSError, AttributeError):  # Windows before Python 3.12 has only blocking pipes
        os.set_blocking(pipe, False)
    os.dup2(2, 1)
    return pipe
