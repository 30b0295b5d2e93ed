"""The child process of `isolation="process"`: reads one order on stdin, runs the job, speaks JSON lines on stdout.

`worker.joblogs.isolation` is the other end and says what the lines are. Secrets come in the clear, which is why the order
comes through a pipe. While stdin is open the parent lives; when it closes, this process ends at once, and what it has started
with it: it leads a group, with which it is killed. What the job itself prints goes to stderr.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

from worker.jobs.context import JobContext
from worker.jobs.job import Job, engine_maker
from worker.jobs.registry import Registry
from worker.jobs.retry import Discard, Retry
from worker.process import forking, platform

if TYPE_CHECKING:
    from worker.db.session import Pending
    from worker.engine import Engine


class Line:
    """The pipe to the parent; any thread may speak."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def say(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._pipe.write(data)
            self._pipe.flush()


class LogLines(logging.Handler):
    """Standard logging inside the job becomes its log lines."""

    def __init__(self, line: Line) -> None:
        super().__init__(logging.INFO)
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except (TypeError, ValueError):  # a record whose arguments do not fit its message
            text = str(record.msg)
        self._line.say(log=[record.levelname.lower(), text, record.name])


class RemoteHold:
    """This execution's grip on its job: what it notes goes through the parent, what it stores to the database."""

    def __init__(
        self, order: dict[str, Any], registry: Registry, line: Line, loop: asyncio.AbstractEventLoop
    ) -> None:
        facts = order["claimed"]
        times = {
            name: datetime.fromisoformat(facts[name]) for name in ("enqueued_at", "run_at", "started_at")
        }
        self.claimed: Any = SimpleNamespace(
            **{**facts, **times, "id": UUID(facts["id"])}, job_name=order["job_name"], args=order["args"]
        )
        self.worker_id = UUID(order["worker_id"])
        self.loop = loop
        self.asked = False  # a process that is to stop is killed
        self._line = line
        self._registry = registry

    @cached_property
    def engine(self) -> Engine:
        """Made when the job first needs it; its commits are announced by the parent."""
        from worker.engine import Engine
        from worker.settings import Settings

        engine = Engine.create(Settings.from_env(os.environ), registry=self._registry)
        engine.database.on_commit = self._committed
        return engine

    def progress(self, value: float | None, note: str | None) -> None:
        self._line.say(progress=[value, note])

    def line(self, level: str, message: str, logger: str | None = None) -> None:
        self._line.say(log=[level, message, logger])

    def wait_asked(self, timeout_s: float) -> bool:
        threading.Event().wait(timeout_s)
        return False

    async def close(self) -> None:
        if "engine" in self.__dict__:
            await self.engine.database.close()

    async def _committed(self, pending: Pending) -> None:
        self._line.say(
            committed={
                "rings": [[str(bell.job_id), bell.queue, bell.priority] for bell in pending.rings],
                "changes": [[kind, key, rev] for (kind, key), rev in pending.changes.items()],
                "signals": [[str(worker_id), message] for worker_id, message in pending.signals],
                "outbox": [str(row_id) for row_id in pending.outbox_ids],
            }
        )


def main() -> None:
    """Runs one order. The exit code tells nothing: the last line does."""
    platform.lead_group()
    line = _take_stdout()
    words = sys.stdin.buffer.readline()
    if not words:  # who asked for this process has thought better of it
        os._exit(0)
    order = json.loads(words)
    os.environ.clear()
    os.environ.update(order["environ"])
    _end_with_parent()
    logging.getLogger().addHandler(LogLines(line))
    logging.getLogger().setLevel(logging.INFO)
    job = None
    try:
        registry = Registry().discover(order["modules"])
        job = _find(registry, order)
        hold = functools.partial(RemoteHold, order, registry, line)
        line.say(result=_plain(_run(job, order["args"], hold)))
    except BaseException as error:  # whatever the job raises, SystemExit included, is how it ended
        line.say(**_describe(error), **_kind(error, job))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the job has left behind must not keep this process


def become(_message: str, line: int) -> None:
    """For a process that was forked: `line` stands for stdin and stdout."""
    forking.call_itself("m-job")
    os.dup2(line, 0)
    os.dup2(line, 1)
    os.close(line)
    main()


def _take_stdout() -> Line:
    """The real stdout is for the parent alone; `print` goes to stderr from here on."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Line(pipe)


def _end_with_parent() -> None:
    """The parent never closes stdin: its end is the parent's end."""
    pipe = os.fdopen(os.dup(0), "rb", buffering=0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # a device, not a path
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        try:
            while pipe.read(4096):
                continue
        finally:
            platform.end_group()

    threading.Thread(target=watch, daemon=True, name="parent").start()


def _find(registry: Registry, order: dict[str, Any]) -> Job:
    job = registry.get(order["job_name"])
    if job is None:
        raise LookupError(f"no module of {', '.join(order['modules'])} defines the job {order['job_name']!r}")
    return job


def _run(job: Job, args: dict[str, Any], hold_in: Callable[[asyncio.AbstractEventLoop], RemoteHold]) -> Any:
    """An async function in a loop of its own; a plain one in this thread, with the loop for its context in another."""
    if job.is_async or job.dependencies:
        return asyncio.run(_run_async(job, args, hold_in))
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="loop").start()
    hold = hold_in(loop)
    engine_maker.set(lambda: hold.engine)
    try:
        return job.function(**_arguments(job, args, hold))
    finally:
        asyncio.run_coroutine_threadsafe(hold.close(), loop).result(10)


async def _run_async(
    job: Job, args: dict[str, Any], hold_in: Callable[[asyncio.AbstractEventLoop], RemoteHold]
) -> Any:
    hold = hold_in(asyncio.get_running_loop())
    engine_maker.set(lambda: hold.engine)
    try:
        if job.dependencies:
            from worker.queue.dependencies import call_with_dependencies

            return await call_with_dependencies(
                hold.engine.broker, None, job, job.bind(args), JobContext(hold)
            )
        return await job.function(**_arguments(job, args, hold))
    finally:
        await hold.close()


def _arguments(job: Job, args: dict[str, Any], hold: RemoteHold) -> dict[str, Any]:
    arguments = job.bind(args)
    if job.context_parameter:
        arguments[job.context_parameter] = JobContext(hold)
    return arguments


def _plain(result: Any) -> Any:
    """The result as JSON; the parent judges whether it can be kept."""
    from worker.joblogs.storable import result_json

    text = result_json(result)
    return None if text is None else json.loads(text)


def _describe(error: BaseException) -> dict[str, Any]:
    shown = error.error if isinstance(error, Retry) and error.error is not None else error
    if not isinstance(shown, BaseException):
        return {"error": str(shown), "traceback": None}
    text = "".join(traceback.format_exception_only(type(shown), shown)).strip()
    trace = "".join(traceback.format_exception(type(shown), shown, _own_frames(shown)))
    return {"error": text, "traceback": trace}


def _kind(error: BaseException, job: Job | None) -> dict[str, Any]:
    if isinstance(error, Retry):
        return {"kind": "retry", "after_s": error.after_s}
    if type(error).__name__ == "Unstorable":
        return {"kind": "unstorable"}
    hopeless: tuple[type[BaseException], ...] = (Discard, *(job.retry.discard_on if job else ()))
    return {"kind": "discard" if isinstance(error, hopeless) else "error"}


def _own_frames(error: BaseException) -> Any:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_machinery(trace.tb_frame.f_globals):
        trace = trace.tb_next
    return trace


def _is_machinery(names: dict[str, Any]) -> bool:
    return names.get("__name__") in ("__main__", __name__) or str(names.get("__name__")).startswith("asyncio")


if __name__ == "__main__":
    main()
