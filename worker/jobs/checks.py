"""What a job's definition may say: every mistake becomes a BadJobDefinition that names the job and the problem."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from worker.errors import BadJobDefinition
from worker.jobs.cron import checked_schedules
from worker.jobs.retry import RetryPolicy
from worker.settings import WORD

JOB_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
LONGEST_TIMEOUT_S = 31 * 86_400.0


class Checks:
    """Says what is wrong with a definition, naming the job."""

    def __init__(self, name: Any) -> None:
        self.name = name
        if not isinstance(name, str) or not JOB_NAME.fullmatch(name):
            self.refuse("a name is made of letters, digits, '_', '.' and '-', at most 200 of them")

    def refuse(self, problem: str) -> None:
        raise BadJobDefinition(name=self.name, problem=problem)

    def function(self, function: Callable[..., Any], isolation: str | None) -> None:
        if not inspect.isroutine(function):
            self.refuse(f"only a function can be a job, not {type(function).__name__}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            self.refuse(
                "it is a generator: a job returns its result, and reports on the way with ctx.progress"
            )
        if next(iter(inspect.signature(function).parameters), "") in ("self", "cls"):
            self.refuse("it is a method: a job is a function of a module")
        self.one_of("isolation", isolation, (None, "thread", "process"))
        if isolation == "thread" and inspect.iscoroutinefunction(function):
            self.refuse('isolation="thread" is for plain functions; an async one runs in the event loop')

    def queue(self, queue: Any) -> Any:
        if not isinstance(queue, str) or not WORD.fullmatch(queue):
            self.refuse(f"queue={queue!r}: a queue is a word of a-z, 0-9, '_' and '-', at most 63 long")
        return queue

    def retry(self, retry: int | RetryPolicy | None) -> RetryPolicy:
        if isinstance(retry, RetryPolicy):
            return retry
        try:
            return RetryPolicy(retry)
        except ValueError as error:
            raise BadJobDefinition(name=self.name, problem=str(error)) from None

    def timeout(self, timeout: Any) -> float | None:
        if timeout is None:
            return None
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float)
            or not 0 < timeout <= LONGEST_TIMEOUT_S
        ):
            self.refuse(
                f"timeout={timeout!r}: it is a number of seconds above 0, at most {LONGEST_TIMEOUT_S:g}"
            )
        return float(timeout)

    def one_of(self, option: str, value: Any, allowed: tuple[Any, ...]) -> Any:
        if value not in allowed:
            self.refuse(f"{option}={value!r}: it is one of {', '.join(repr(each) for each in allowed)}")
        return value

    def patterns(self, patterns: tuple[Any, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            words = pattern.split(".") if isinstance(pattern, str) else [""]
            inner, last = words[:-1], words[-1]
            if not all(word == "*" or WORD.fullmatch(word) for word in inner) or not (
                last in ("*", ">") or WORD.fullmatch(last)
            ):
                self.refuse(
                    f"on={pattern!r}: a pattern is words joined by dots, with * for one and > for the rest"
                )
        return patterns

    def schedules(self, schedules: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
        try:
            return checked_schedules(schedules)
        except ValueError as error:
            raise BadJobDefinition(name=self.name, problem=str(error)) from None


def plain_name(function: Callable[..., Any]) -> str:
    """The function's own name; Taskiq renames what it decorates."""
    return str(getattr(function, "__name__", type(function).__name__)).removesuffix("__taskiq_original")
