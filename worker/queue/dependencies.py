"""Taskiq dependencies of a job's parameters: resolved before the call, closed after it, never shared between jobs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from taskiq import AsyncBroker, Context, TaskiqMessage, TaskiqState
from taskiq_dependencies import DependencyGraph

from worker.jobs.context import JobContext
from worker.jobs.job import Job

_graphs: WeakKeyDictionary[Callable[..., Any], DependencyGraph] = WeakKeyDictionary()


@asynccontextmanager
async def resolved(broker: AsyncBroker, job: Job, ctx: JobContext) -> AsyncIterator[dict[str, Any]]:
    """The values of the parameters that `TaskiqDepends` fills in; an exception in the block reaches the generators.

    `JobContext`, Taskiq's `Context` and `TaskiqState`, and what `broker.add_dependency_context` added can be depended on.
    """
    if not job.dependencies:
        yield {}
        return
    graph = _graphs.get(job.function)
    if graph is None:
        graph = _graphs[job.function] = DependencyGraph(job.function)
    message = TaskiqMessage(task_id=str(ctx.job_id), task_name=job.name, labels={}, args=[], kwargs={})
    known = {
        **broker.custom_dependency_context,
        JobContext: ctx,
        Context: Context(message, broker),
        TaskiqState: broker.state,
    }
    resolver = graph.async_ctx(known, broker.dependency_overrides or None)
    try:
        yield await resolver.resolve_kwargs()
    except BaseException as error:
        await resolver.close(type(error), error, error.__traceback__)
        raise
    await resolver.close(None, None, None)


async def call_with_dependencies(
    broker: AsyncBroker, threads: Executor | None, job: Job, kwargs: Mapping[str, Any], ctx: JobContext
) -> Any:
    """Calls the job's function with `kwargs`, its JobContext and its dependencies; a plain function in a thread."""
    async with resolved(broker, job, ctx) as found:
        call = functools.partial(job.function, **found, **kwargs)
        if job.context_parameter:
            call = functools.partial(call, **{job.context_parameter: ctx})
        return await (call() if job.is_async else _in_thread(threads, call))


async def _in_thread(threads: Executor | None, call: Callable[[], Any]) -> Any:
    """Returns only when the thread has: a thread cannot be cancelled, so the job must not count as ended before."""
    inside = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(threads, inside.run, call)
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):  # the job reads it as ctx.cancelled
            await asyncio.wait([future])
    return future.result()
