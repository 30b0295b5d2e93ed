"""Running one claimed job to its outcome: bind the arguments, run the code, judge how it ended."""

from __future__ import annotations

import asyncio
import random
import traceback as tracebacks
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from worker.errors import DeskError, Invalid
from worker.joblogs.capture import capturing
from worker.joblogs.finishes import Outcome
from worker.joblogs.hold import Hold
from worker.joblogs.isolation import DiedWithOthers, ProcessDied, RemoteError, run_in_process
from worker.joblogs.storable import Unstorable, result_json
from worker.jobs import secret
from worker.jobs.context import JobContext
from worker.jobs.job import Job
from worker.jobs.retry import Discard, Retry

Call = Callable[[Job, dict[str, Any], JobContext], Awaitable[Any]]
"""Runs the job's function with these arguments, its context and its Taskiq dependencies; in a thread if it is sync."""


class TimedOut(Exception):
    """The job ran longer than its time limit."""


async def execute(hold: Hold, call: Call, succeeded: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """Runs the job that `hold` holds and says how it ended. Never raises, and returns only when its code has stopped.

    `succeeded` is told of a success in the very step in which the code returns: a process may be killed before the next.
    """
    claimed = hold.claimed
    job = hold.engine.registry.get(claimed.job_name)
    if job is None:
        return Outcome(claimed, "queued", reason="unknown_job")
    try:
        args, redactor = secret.open_args(job.fields, claimed.args, hold.engine.settings.secret_key)
        kwargs = job.bind(args)
    except Invalid as error:
        return Outcome(claimed, "failed", error=f"The arguments do not fit: {error}", reason="bad_arguments")

    def success(result: Any) -> Outcome:
        outcome = Outcome(claimed, "success", result=result_json(redactor.value(result)))
        succeeded(outcome)
        return outcome

    async def succeeds() -> Outcome:
        if job.isolation == "process" or claimed.lane == "alone":
            outcome: Outcome = await run_in_process(hold, job, args, redactor, success)
            return outcome
        hold.begun = True
        return success(await call(job, kwargs, JobContext(hold, redactor)))

    try:
        with capturing(hold, redactor):
            return await _run(hold, succeeds)
    except Unstorable as error:
        return Outcome(claimed, "failed", error=redactor.text(str(error)), reason="result_unstorable")
    except DiedWithOthers:
        return _released(hold)
    except ProcessDied as error:
        return Outcome(claimed, "lost", error=str(error), reason="worker_lost")
    except BaseException as error:  # whatever a job raises, SystemExit included, is how that job ended
        if isinstance(error, asyncio.CancelledError) and hold.why is None and _being_cancelled():
            raise
        return judge(hold, job, error, redactor, random.random())


def judge(hold: Hold, job: Job, error: BaseException, redactor: secret.Redactor, chance: float) -> Outcome:
    """What becomes of an execution that raised. `chance` is from [0, 1) and decides the jitter."""
    claimed = hold.claimed
    if hold.why == "cancel":
        return Outcome(claimed, "cancelled", reason="cancelled")
    if hold.why in ("release", "lost"):
        return _released(hold)
    text, trace = _words(error, claimed.timeout_s)
    text, trace = redactor.text(text), redactor.text(trace) if trace else None
    decision = job.retry.decide(_cause(error), claimed.attempt, claimed.max_retries, chance)
    reason = "timeout" if isinstance(error, TimedOut) else "discarded" if _discarded(error) else "error"
    if decision.kind == "retry":
        return Outcome(
            claimed,
            "retrying",
            error=text,
            traceback=trace,
            reason=reason,
            retry_after_s=decision.after_s or 0.0,
        )
    return Outcome(claimed, "failed", error=text, traceback=trace, reason=reason)


def _released(hold: Hold) -> Outcome:
    return Outcome(hold.claimed, "released" if hold.begun else "queued", reason="released")


async def _run(hold: Hold, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """Runs the code under its time limit; a stop that was asked for cancels it."""
    task = asyncio.ensure_future(_contained(work))
    limit = hold.loop.call_later(hold.claimed.timeout_s, hold.ask, "timeout")
    hold.on_ask(lambda: _stop(task))
    try:
        answer = await _wait_for(task)
    finally:
        limit.cancel()
    if isinstance(answer, BaseException):
        if hold.why == "timeout":
            raise TimedOut from answer
        raise answer
    return answer


def _stop(task: asyncio.Future[Any]) -> None:
    task.cancel()


async def _contained(work: Callable[[], Awaitable[Outcome]]) -> Outcome | BaseException:
    """The outcome or the exception as a value: a SystemExit that left its task would end the whole loop."""
    try:
        return await work()
    except BaseException as error:  # handed to `_run`, which raises it in its own place
        return error


async def _wait_for(task: asyncio.Future[Outcome | BaseException]) -> Outcome | BaseException:
    """Waits until the task has really ended, even if it takes its time to."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return error if error is not None else task.result()


def _words(error: BaseException, timeout_s: float) -> tuple[str, str | None]:
    """The error in one line, and its traceback from the job's own code on."""
    if isinstance(error, TimedOut):
        return f"TimeoutError: it ran longer than its limit of {timeout_s:g} s", None
    if isinstance(error, RemoteError):
        return error.text, error.traceback
    if isinstance(error, Retry) and error.error is not None and not isinstance(error.error, BaseException):
        return str(error.error), None
    shown = error.error if isinstance(error, Retry) and isinstance(error.error, BaseException) else error
    text = "".join(tracebacks.format_exception_only(type(shown), shown)).strip()
    if isinstance(shown, DeskError | Discard | Retry):
        text = f"{type(shown).__name__}: {shown}"
    return text, "".join(tracebacks.format_exception(type(shown), shown, _own_frames(shown.__traceback__)))


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the engine's frames at its top."""
    while (
        trace is not None
        and trace.tb_next is not None
        and _is_engine(trace.tb_frame.f_globals.get("__name__", ""))
    ):
        trace = trace.tb_next
    return trace


def _is_engine(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ("worker", "taskiq", "asyncio", "concurrent", "anyio")


def _cause(error: BaseException) -> BaseException:
    """The exception the retry policy judges; one from another process stands for its kind."""
    if not isinstance(error, RemoteError):
        return error
    if error.kind == "discard":
        return Discard(error.text)
    return Retry(after=error.after_s) if error.kind == "retry" else error


def _discarded(error: BaseException) -> bool:
    return isinstance(_cause(error), Discard)


def _being_cancelled() -> bool:
    """Whether somebody cancels this very task, as the receiver does when it must leave at once."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
