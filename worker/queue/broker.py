"""Taskiq's face of the engine: tasks are Jobs, `.kiq()` writes a row first, results are read from the JobLog."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from pydantic_core import to_jsonable_python
from taskiq import AckableMessage, AsyncBroker, BrokerMessage, TaskiqResult
from taskiq.abc.result_backend import AsyncResultBackend
from taskiq.depends.progress_tracker import TaskProgress, TaskState
from taskiq.message import TaskiqMessage

from worker.accounts.actor import ENGINE
from worker.db.base import new_id
from worker.db.session import Database
from worker.errors import JobFailed
from worker.joblogs.models import JobLog
from worker.joblogs.states import is_terminal
from worker.jobs.registry import Registry, from_labels
from worker.schedules.ensure import ensure

OPTIONS = ("queue", "priority", "run_at", "unique_key", "max_retries", "timeout_s", "user", "tags", "note")
"""The labels of a message that decide about its JobLog; other labels mean nothing here and never become headers."""


class EngineProtocol(Protocol):
    """What the broker needs of the engine that owns it."""

    database: Database
    registry: Registry

    async def enqueue(self, job_name: str, args: dict[str, Any] | None = None, **options: Any) -> UUID: ...


class JobBroker(AsyncBroker):
    """A Taskiq broker whose messages are rows. Adapters add the transport of the doorbells.

    `kick` serves foreign kickers; `.kiq()` of the desk's own tasks goes through `engine.enqueue` directly.
    """

    def __init__(self) -> None:
        AsyncBroker.__init__(self)
        self.prepare()

    def prepare(self) -> None:
        """Called once by each adapter's constructor, after Taskiq's own."""
        self.engine: EngineProtocol | None = None
        self.id_generator = lambda: str(new_id())
        self.result_backend = JobLogResults(self)

    def bind(self, engine: EngineProtocol) -> None:
        """Makes `engine` the one that this broker enqueues with."""
        self.engine = engine

    @property
    def bound(self) -> EngineProtocol:
        if self.engine is None:
            raise RuntimeError("this broker is not bound to an engine: use it after Engine.create")
        return self.engine

    @property
    def custom_dependency_context(self) -> dict[Any, Any]:
        """A copy: Taskiq puts one job's Context into the dict it gets here, and another job must not find it."""
        return dict(self.__dict__.get("_dependency_context", {}))

    @custom_dependency_context.setter
    def custom_dependency_context(self, value: dict[Any, Any]) -> None:
        self.__dict__["_dependency_context"] = value

    def add_dependency_context(self, new_ctx: dict[Any, Any]) -> None:
        self.__dict__["_dependency_context"].update(new_ctx)

    def task(self, task_name: Any = None, *, name: str | None = None, **labels: Any) -> Any:
        """Registers a job, as `@job` does: `@broker.task(name=, retry=, timeout=, queue=, schedule=)`, or bare.

        Raises:
            BadJobDefinition, DuplicateJob: as `@job` and discovery do.
        """
        if callable(task_name):
            made = from_labels(task_name, name, labels)
            self.bound.registry.add(made)
            return made
        return lambda function: self.task(function, name=name or task_name, **labels)

    async def kick(self, message: BrokerMessage) -> None:
        """Writes the row of a Taskiq message; its doorbell follows the commit.

        Raises:
            UnknownJob, Invalid, QueueFull: nothing was written.
        """
        parsed: TaskiqMessage = self.formatter.loads(message.message)
        parsed.parse_labels()
        options = {name: parsed.labels[name] for name in OPTIONS if name in parsed.labels}
        args = by_name(self, parsed)
        await self.bound.enqueue(message.task_name, args, job_id=UUID(message.task_id), **options)

    def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Refuses: a message holds no task, so Taskiq's own receiver and CLI cannot run jobs."""
        raise RuntimeError("run workers with `m worker`: jobs are claimed in the database by JobReceiver")


def by_name(broker: JobBroker, message: TaskiqMessage) -> dict[str, Any]:
    """The message's arguments as one JSON object: positional ones get the names of the task's signature."""
    args = dict(message.kwargs)
    if message.args:
        job = broker.bound.registry.get(message.task_name)
        if job is None:
            raise TypeError(
                f"{message.task_name} takes no positional arguments from a program that does not define it"
            )
        return job.parameters.encode(tuple(message.args), args)
    return dict(to_jsonable_python(args))


class JobLogResults(AsyncResultBackend[Any]):
    """Reads results where they are kept anyway. Writing is the recorder's work."""

    def __init__(self, broker: JobBroker) -> None:
        self._broker = broker

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """The recorder has written it."""

    async def is_result_ready(self, task_id: str) -> bool:
        row = await self._row(task_id)
        return row is not None and is_terminal(row.status)

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """The job's end; `is_err` unless it succeeded.

        Raises:
            KeyError: there is no such job, or it has not ended.
        """
        row = await self._row(task_id)
        if row is None or not is_terminal(row.status):
            raise KeyError(task_id)
        ok = row.status == "success"
        took = (
            (row.completed_at - row.started_at).total_seconds()
            if row.started_at and row.completed_at
            else 0.0
        )
        error = (
            None if ok else JobFailed(job_id=task_id, status=row.status, error=row.error or row.reason or "")
        )
        return TaskiqResult(is_err=not ok, return_value=row.result, execution_time=took, error=error)

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        row = await self._row(task_id)
        if row is None:
            return None
        states = {"running": TaskState.STARTED, "retrying": TaskState.RETRY, "success": TaskState.SUCCESS}
        state = states.get(row.status, TaskState.FAILURE if is_terminal(row.status) else TaskState.STARTED)
        return TaskProgress(state=state, meta={"progress": row.progress, "note": row.progress_note})

    async def _row(self, task_id: str) -> Any:
        columns = (
            JobLog.status, JobLog.result, JobLog.error, JobLog.reason, JobLog.started_at, JobLog.completed_at,
            JobLog.progress, JobLog.progress_note,
        )  # fmt: skip
        async with self._broker.bound.database.read() as connection:
            found = await connection.execute(sa.select(*columns).where(JobLog.id == UUID(task_id)))
            return found.one_or_none()


class JobQueue:
    """`JobQueueProtocol` on an engine: the job is in the database when `enqueue` returns."""

    def __init__(self, engine: EngineProtocol) -> None:
        self.engine = engine

    async def enqueue(self, job_name: str, **kwargs: Any) -> str:
        return str(await self.engine.enqueue(job_name, dict(to_jsonable_python(kwargs))))

    async def schedule(self, job_name: str, cron: str, **kwargs: Any) -> str:
        args = dict(to_jsonable_python(kwargs))
        async with self.engine.database.transaction() as session:
            schedule = await ensure(session, job_name, cron, args, actor=ENGINE)
            return str(schedule.id)


class TaskiqJobQueueAdapter(JobQueue):
    """The queue behind Taskiq's broker: doorbells on NATS wake workers in other processes and on other hosts."""
