"""`@job`: a function that workers run, with its name, queue, retries and limits."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload
from uuid import UUID

from worker.errors import BadJobDefinition
from worker.jobs.checks import Checks, plain_name
from worker.jobs.retry import RetryPolicy

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from taskiq import AsyncTaskiqTask
    from taskiq.kicker import AsyncKicker

    from worker.engine import Engine
    from worker.joblogs.models import JobLog
    from worker.jobs.context import JobContext
    from worker.jobs.fields import Field
    from worker.jobs.parameters import Parameters

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Isolation = Literal["thread", "process"]

engine_maker: ContextVar[Callable[[], Engine] | None] = ContextVar("engine_maker", default=None)
"""How a job in a process of its own gets an engine when it first enqueues; elsewhere it is the one that was started."""


@dataclass(frozen=True)
class Job:
    """What a job is, once its function was read. Workers keep these in a Registry and advertise them."""

    name: str
    function: Callable[..., Any]
    module: str
    queue: str = "default"
    doc: str = ""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    isolation: Literal["", "thread", "process"] = ""
    on_lost: Literal["restart", "fail"] = "restart"
    on_events: tuple[str, ...] = ()
    schedules: tuple[dict[str, Any], ...] = ()

    @cached_property
    def parameters(self) -> Parameters:
        from worker.jobs.parameters import Parameters

        return Parameters.of(self.function, self.name)

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.parameters.fields

    @property
    def context_parameter(self) -> str | None:
        return self.parameters.context

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Names of the parameters that `TaskiqDepends` fills in."""
        return self.parameters.dependencies

    @cached_property
    def secret_fields(self) -> frozenset[str]:
        return frozenset(each.name for each in self.fields if each.kind == "secret")

    @property
    def max_retries(self) -> int | None:
        return self.retry.max_retries

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    @property
    def place(self) -> str:
        """Where its function is written: `myapp.jobs:send_email (/srv/myapp/jobs.py:12)`."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return f"{self.module}:{plain_name(self.function)}{where}"

    def validate(self, args: dict[str, Any]) -> dict[str, Any]:
        """JSON arguments that fit the signature; defaults are not filled in. Raises Invalid."""
        return self.parameters.validate(args)

    def bind(self, args: dict[str, Any]) -> dict[str, Any]:
        """JSON arguments as the values for the call. Raises Invalid."""
        return self.parameters.bind(args)

    def check(self) -> Job:
        """Reads the whole signature now, so that a mistake in it is found at start and not at the first run.

        Raises:
            BadJobDefinition: naming the job and the problem.
        """
        from worker.errors import Invalid
        from worker.jobs.parameters import nested_secret

        if name := nested_secret(self.parameters):
            raise BadJobDefinition(
                name=self.name,
                problem=f"its parameter {name!r} holds a Secret inside; only a whole parameter can be one",
            )
        for schedule in self.schedules:
            try:
                self.validate(schedule["args"])
            except Invalid as error:
                raise BadJobDefinition(
                    name=self.name, problem=f"its schedule's arguments do not fit: {error}"
                ) from None
        return self

    def catalogue_row(self, *, max_retries: int = 3, timeout_s: float = 300.0) -> dict[str, Any]:
        """The columns of JobCatalogue that code decides; the arguments are the worker's own defaults."""
        row = {
            "name": self.name,
            "module": self.module,
            "queue": self.queue,
            "doc": self.doc,
            "parameters": [each.as_json() for each in self.fields],
            "args_schema": self.parameters.schema,
            "retry": self.retry.as_json(),
            "max_retries": max_retries if self.max_retries is None else self.max_retries,
            "timeout_s": timeout_s if self.timeout_s is None else self.timeout_s,
            "isolation": self.isolation,
            "on_lost": self.on_lost,
            "on_events": list(self.on_events),
            "schedules": [self._without_secrets(schedule) for schedule in self.schedules],
        }
        digest = hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode())
        return {**row, "fingerprint": digest.hexdigest()}

    def _without_secrets(self, schedule: dict[str, Any]) -> dict[str, Any]:
        from worker.jobs import secret

        hidden = secret.names(self.fields)
        args = {name: secret.MASK if name in hidden else value for name, value in schedule["args"].items()}
        return {**schedule, "args": args}


class JobFunction(Generic[P, R]):
    """A function that was decorated with `@job`. Calling it calls the function; `.kiq()` runs it in a worker."""

    def __init__(self, definition: Job, options: Mapping[str, Any] | None = None) -> None:
        self.definition = definition
        self.options = dict(options or {})
        update_wrapper(self, definition.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.definition.function(*args, **kwargs)  # type: ignore[no-any-return]  # the function's own R

    @property
    def name(self) -> str:
        return self.definition.name

    def with_options(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        unique_key: str | None = None,
        max_retries: int | None = None,
        timeout_s: float | None = None,
        tags: Iterable[str] | None = None,
        user: str | None = None,
    ) -> JobFunction[P, R]:
        """The same job, enqueued with other options: `await send.with_options(priority=0).kiq(to="a@b.c")`."""
        given = {
            "queue": queue, "priority": priority, "run_at": run_at, "unique_key": unique_key, "user": user,
            "max_retries": max_retries, "timeout_s": timeout_s, "tags": None if tags is None else tuple(tags),
        }  # fmt: skip
        return type(self)(
            self.definition, {**self.options, **{k: v for k, v in given.items() if v is not None}}
        )

    @overload
    async def kiq(
        self: JobFunction[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncTaskiqTask[T]: ...
    @overload
    async def kiq(self, *args: P.args, **kwargs: P.kwargs) -> AsyncTaskiqTask[R]: ...
    async def kiq(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Enqueues a run in a transaction of its own and returns its task: `task_id` is the job id.

        Raises:
            Invalid: the arguments do not fit.
            QueueFull: the queue is at its limit.
        """
        from taskiq import AsyncTaskiqTask

        engine = _engine()
        job_id = await engine.enqueue(self.name, self.encode(*args, **kwargs), **self.options)
        return AsyncTaskiqTask(str(job_id), engine.broker.result_backend, self.return_type)

    async def enqueue(self, session: AsyncSession, *args: P.args, **kwargs: P.kwargs) -> JobLog:
        """Enqueues a run in the caller's transaction: it exists if, and only if, that commits."""
        from worker.joblogs.actions import enqueue

        return await enqueue(session, self.name, self.encode(*args, **kwargs), **self.options)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> UUID:
        """`.kiq()` for synchronous code, on the engine of this process. Returns the job id."""
        from worker.engine import enqueue_sync

        return enqueue_sync(self.name, self.encode(*args, **kwargs), **self.options)

    def encode(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The call's arguments as the JSON object that is stored."""
        return self.definition.parameters.encode(args, kwargs)

    # What Taskiq's own decorated tasks have, so that code written for them works

    @property
    def task_name(self) -> str:
        return self.name

    @property
    def original_func(self) -> Callable[P, R]:
        return self.definition.function

    @property
    def labels(self) -> dict[str, Any]:
        return dict(self.options)

    @cached_property
    def return_type(self) -> Any:
        from typing import get_type_hints

        return get_type_hints(self.definition.function).get("return")

    def kicker(self) -> AsyncKicker[P, R]:
        """Taskiq's own kicker, on this process's broker."""
        from taskiq.kicker import AsyncKicker

        return AsyncKicker(self.name, _engine().broker, self.labels, return_type=self.return_type)

    def __repr__(self) -> str:
        return f"<job {self.name}>"


class ContextJobFunction(JobFunction[P, R]):
    """A job whose first parameter is the JobContext: `.kiq()` and `.enqueue()` leave it out."""

    if TYPE_CHECKING:

        def __call__(self, ctx: JobContext, /, *args: P.args, **kwargs: P.kwargs) -> R: ...  # type: ignore[override]


class JobDecorator:
    """What `@job(...)` returns: it wraps a function, with or without a JobContext in front."""

    def __init__(self, make: Callable[[Callable[..., Any]], JobFunction[Any, Any]]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> ContextJobFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> JobFunction[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> JobFunction[Any, Any]:
        return self._make(function)


@overload
def job(function: Callable[Concatenate[JobContext, P], R], /) -> ContextJobFunction[P, R]: ...
@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...
@overload
def job(
    *,
    name: str | None = None,
    queue: str = "default",
    retry: int | RetryPolicy | None = None,
    timeout: float | None = None,
    isolation: Isolation | None = None,
    on_lost: Literal["restart", "fail"] = "restart",
    on: str | Iterable[str] = (),
    schedule: Iterable[Mapping[str, Any]] = (),
) -> JobDecorator: ...
def job(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a job. Use it bare or with options.

    Args:
        name: default the function's name; letters, digits and `_ . -`, at most 200.
        queue: the lane it waits in.
        retry: how many retries (default M_JOB_MAX_RETRIES), or a RetryPolicy.
        timeout: seconds a run may take (default M_JOB_TIMEOUT_S).
        isolation: None runs `async def` in the event loop and `def` in a thread; "process" gives each run its own.
        on_lost: "restart" (default) runs it again when its worker or its own process died or its worker left; "fail" does not.
        on: event patterns like `doc.*`; it is enqueued once for each matching event, which it is given if it has a parameter `event`.
        schedule: recorded for the desk; this version does not fire it. `[{"cron": "0 9 * * *", "time_zone": "Europe/Warsaw", "args": {...}}]`.

    Raises:
        BadJobDefinition: naming the job and the problem.
    """
    if function is not None and not callable(function):
        raise BadJobDefinition(name=str(function), problem="@job takes its options by name: @job(name=...)")
    if function is not None:
        return make_job(function, **options)
    return JobDecorator(lambda decorated: make_job(decorated, **options))


def make_job(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str = "default",
    retry: int | RetryPolicy | None = None,
    timeout: float | None = None,
    isolation: Isolation | None = None,
    on_lost: Literal["restart", "fail"] = "restart",
    on: str | Iterable[str] = (),
    schedule: Iterable[Mapping[str, Any]] = (),
) -> JobFunction[..., Any]:
    """`@job` as a plain call; `@broker.task` and adopted Taskiq tasks come here too."""
    if isinstance(function, JobFunction):
        raise BadJobDefinition(name=function.name, problem="it is a job already: decorate the function once")
    name = name or plain_name(function)
    checks = Checks(name)
    checks.function(function, isolation)
    definition = Job(
        name=name,
        function=function,
        module=function.__module__,
        queue=checks.queue(queue),
        doc=inspect.getdoc(function) or "",
        retry=checks.retry(retry),
        timeout_s=checks.timeout(timeout),
        isolation=isolation or "",
        on_lost=checks.one_of("on_lost", on_lost, ("restart", "fail")),
        on_events=checks.patterns((on,) if isinstance(on, str) else tuple(on)),
        schedules=checks.schedules(schedule),
    )
    return JobFunction(definition)


def with_schedule(definition: Job, schedule: Mapping[str, Any]) -> Job:
    """The job with one schedule more, as a module's `cron_jobs` adds it."""
    more = Checks(definition.name).schedules([schedule])
    return replace(definition, schedules=definition.schedules + more)


def _engine() -> Engine:
    maker = engine_maker.get()
    if maker is not None:
        return maker()
    from worker.engine import Engine

    return Engine.bound()
