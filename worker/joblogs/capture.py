"""Standard logging inside a job becomes its log lines; secrets are taken out before they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from worker.joblogs.hold import Hold, current_hold
from worker.jobs.secret import Redactor

_redactor: ContextVar[Redactor | None] = ContextVar("redactor", default=None)

OURS = ("worker", "nats", "sqlalchemy", "taskiq", "aiosqlite", "asyncio", "httpcore")
"""Loggers whose lines tell of the machinery and not of the job."""


class JobLogHandler(logging.Handler):
    """Sends each record to the job in whose task or thread it was made; others are not its business."""

    def emit(self, record: logging.LogRecord) -> None:
        hold = current_hold.get()
        if hold is None or record.name.split(".")[0] in OURS:
            return
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # a record whose arguments do not fit its message
            text = str(record.msg)
        redactor = _redactor.get()
        hold.line(record.levelname.lower(), redactor.text(text) if redactor else text, record.name)


def install() -> None:
    """Attaches the handler to the root logger of this process, once, and lets lines from INFO up pass."""
    root = logging.getLogger()
    if not any(isinstance(handler, JobLogHandler) for handler in root.handlers):
        root.addHandler(JobLogHandler())
    if root.level > logging.INFO or root.level == logging.NOTSET:
        root.setLevel(logging.INFO)


@contextmanager
def capturing(hold: Hold, redactor: Redactor) -> Iterator[None]:
    """Whatever logs in this task, its children and its threads belongs to `hold`'s job."""
    tokens = current_hold.set(hold), _redactor.set(redactor)
    try:
        yield
    finally:
        current_hold.reset(tokens[0])
        _redactor.reset(tokens[1])
