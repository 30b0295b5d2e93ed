"""One execution's grip on its job: what it was given, how it is asked to stop, where its notes go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from worker.joblogs.claims import Claimed
from worker.joblogs.notes import Notes

if TYPE_CHECKING:
    from worker.engine import Engine

Why = Literal["cancel", "timeout", "release", "lost"]
"""A person cancelled; the time limit passed; the worker is leaving; the job is no longer held."""

current_hold: ContextVar[Hold | None] = ContextVar("current_hold", default=None)
"""The hold of the job that this code runs in, in tasks and threads alike: standard logging finds its job by it."""


class Hold:
    """Shared by the receiver (which asks to stop), `execute` (which runs) and the JobContext (which the job sees)."""

    def __init__(self, engine: Engine, claimed: Claimed, notes: Notes, worker_id: UUID) -> None:
        self.engine = engine
        self.claimed = claimed
        self.notes = notes
        self.worker_id = worker_id
        self.loop = asyncio.get_running_loop()
        self.why: Why | None = None
        self.begun = False
        """Whether the job's own code may have run."""
        self._asked = threading.Event()
        self._on_ask: list[Callable[[], None]] = []

    @property
    def asked(self) -> bool:
        """Whether the job was asked to stop; safe to read from any thread."""
        return self._asked.is_set()

    def ask(self, why: Why) -> None:
        """Asks the execution to stop, once; the first reason stays. Call it in the event loop."""
        if self.why is not None:
            return
        self.why = why
        self._asked.set()
        for callback in self._on_ask:
            callback()

    def on_ask(self, callback: Callable[[], None]) -> None:
        """Calls back when the job is asked to stop; at once if it was."""
        self._on_ask.append(callback)
        if self.asked:
            callback()

    def wait_asked(self, timeout_s: float) -> bool:
        """Sleeps in a thread until asked to stop, at most this long; answers whether it was."""
        return self._asked.wait(timeout_s)

    def progress(self, value: float | None, note: str | None) -> None:
        """Notes progress from any thread."""
        self._in_loop(lambda: self.notes.progress(self.claimed, value, note))

    def line(self, level: str, message: str, logger: str | None = None) -> None:
        """Notes a log line from any thread."""
        self._in_loop(lambda: self.notes.line(self.claimed, level, message, logger))

    def _in_loop(self, call: Callable[[], None]) -> None:
        try:
            inside = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            inside = False
        if inside:
            call()
        else:
            self.loop.call_soon_threadsafe(call)
