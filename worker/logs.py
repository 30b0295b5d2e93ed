"""The desk's own log: one clear line per event on stderr, tracebacks without the values of local variables."""

from __future__ import annotations

import contextlib
import logging
import sys

import structlog


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sets up the log of this process. What is secret in a local variable never reaches it."""
    stderr = sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: LineLogger(stderr),
    )


class LineLogger(structlog.PrintLogger):
    """Loses a line that cannot be written: a full disk or a reader that is gone must not end whoever says something."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg
