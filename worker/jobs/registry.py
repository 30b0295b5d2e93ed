"""The jobs that this process can run, collected from the modules that it was told to import."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import structlog

from worker.errors import BadJobDefinition, DuplicateJob, JobModuleError
from worker.jobs.cron import CronJob
from worker.jobs.job import Job, JobFunction, make_job, with_schedule

log = structlog.get_logger(__name__)

BUILTIN = "worker.jobs.builtin"
"""Found by every `discover`."""


class Registry:
    """Jobs by name. `modules` are the names it was filled from, for the worker's row and for child processes."""

    def __init__(self, jobs: Iterable[JobFunction[..., Any] | Job] = ()) -> None:
        self.modules: tuple[str, ...] = ()
        self.adopted: dict[int, Any] = {}
        """Tasks of Taskiq brokers of the user's own."""
        self._jobs: dict[str, Job] = {}
        for each in jobs:
            self.add(each)

    def add(self, job: JobFunction[..., Any] | Job) -> Job:
        """Takes a job in. The same function again is no mistake.

        Raises:
            DuplicateJob: another function has this name.
            BadJobDefinition: its signature cannot be filled from stored arguments.
        """
        definition = job.definition if isinstance(job, JobFunction) else job
        known = self._jobs.get(definition.name)
        if known is None:
            known = self._jobs[definition.name] = definition.check()
        elif known.function is not definition.function:
            raise DuplicateJob(name=definition.name, first=known.place, second=definition.place)
        return known

    def get(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def names(self) -> list[str]:
        return sorted(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs[name] for name in self.names())

    def __len__(self) -> int:
        return len(self._jobs)

    def discover(self, modules: Iterable[str]) -> Registry:
        """Imports the modules (a package with everything in it) and takes in the jobs found there.

        That is: functions decorated with `@job` or `@broker.task`, and the tasks of any Taskiq broker. The current
        directory can be imported from.

        Raises:
            JobModuleError: a module does not import, with the cause.
            DuplicateJob, BadJobDefinition: as `add`.
        """
        _make_importable(Path.cwd())
        planned: list[tuple[str, CronJob]] = []
        for name in (BUILTIN, *modules):
            before = len(self)
            for module in _with_submodules(_import(name)):
                self._collect(module)
                planned += [(module.__name__, plan) for plan in _cron_jobs(module)]
            if len(self) == before and name not in self.modules:
                log.warning("no jobs found in this module", module=name)
            self.modules += (name,) if name not in self.modules else ()
        for where, plan in planned:
            self._schedule(plan, where)
        return self

    def _collect(self, module: ModuleType) -> None:
        for value in list(vars(module).values()):
            if isinstance(value, JobFunction):
                self.add(value)
            for task in _taskiq_tasks(value):
                self._adopt(task)

    def _adopt(self, task: Any) -> None:
        if isinstance(task, JobFunction):
            self.add(task)
        else:
            self.add(from_labels(task.original_func, task.task_name, task.labels))
            self.adopted[id(task)] = task

    def bind(self, broker: Any) -> None:
        """Makes `.kiq()` of every adopted Taskiq task enqueue with this broker."""
        for task in self.adopted.values():
            task.broker = broker
            task.task_name = job_name_of(task.task_name)

    def _schedule(self, plan: CronJob, module: str) -> None:
        job = self.get(plan.name)
        if job is None:
            known = ", ".join(self.names()) or "none"
            raise BadJobDefinition(
                name=plan.name, problem=f"cron_jobs schedules it, but the jobs are: {known}"
            )
        elsewhere = {} if module == job.module else {"module": module}
        schedule = plan.as_schedule() | elsewhere
        if schedule not in job.schedules:
            self._jobs[job.name] = with_schedule(job, schedule).check()


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(folder))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (KeyboardInterrupt, BadJobDefinition, DuplicateJob):
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            cause = f"there is no module {error.name!r} in {Path.cwd()} or on PYTHONPATH"
            raise JobModuleError(module=name, cause=cause) from error
        raise JobModuleError(module=name, cause=_cause(error)) from error
    except BaseException as error:  # user code may raise anything at import, even SystemExit
        raise JobModuleError(module=name, cause=_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What happened and where in the user's code: the innermost line outside the import machinery."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    return f"{words} ({own[-1].filename}:{own[-1].lineno})" if own else words


def _with_submodules(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith(("_", "test", "conftest")):
            yield from _with_submodules(_import(f"{module.__name__}.{found.name}"))


def _cron_jobs(module: ModuleType) -> list[CronJob]:
    planned = getattr(module, "cron_jobs", [])
    if not isinstance(planned, list | tuple) or not all(isinstance(plan, CronJob) for plan in planned):
        raise BadJobDefinition(
            name=f"{module.__name__}.cron_jobs", problem='it is a list of cron("job_name", hour=9, minute=0)'
        )
    return list(planned)


# Tasks of a Taskiq broker of the user's own


def _taskiq_tasks(value: Any) -> list[Any]:
    """The task that a module's value is, or all tasks of the broker that it is."""
    if "taskiq" not in sys.modules:
        return []
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

    if isinstance(value, AsyncTaskiqDecoratedTask):
        return [value]
    return list(value.get_all_tasks().values()) if isinstance(value, AsyncBroker) else []


def from_labels(function: Any, name: str | None, labels: dict[str, Any]) -> JobFunction[..., Any]:
    """A job from Taskiq's labels: `retry`, `max_retries`, `timeout`, `queue`, `schedule` and those of `@job`."""
    options = {
        key: labels[key]
        for key in ("queue", "timeout", "isolation", "on_lost", "on", "schedule")
        if key in labels
    }
    if options.get("schedule"):
        options["schedule"] = [_from_taskiq_schedule(each) for each in options["schedule"]]
    retry = labels.get("retry", labels.get("max_retries"))
    return make_job(function, name=job_name_of(name) if name else None, retry=retry, **options)


def job_name_of(task_name: str) -> str:
    """Taskiq's default name is `module:function`; a job's name has no colon."""
    return task_name.replace(":", ".")


def _from_taskiq_schedule(schedule: dict[str, Any]) -> dict[str, Any]:
    known = {"cron": schedule.get("cron"), "args": schedule.get("kwargs") or schedule.get("args") or {}}
    zone = schedule.get("time_zone") or schedule.get("cron_offset")
    return known | ({"time_zone": zone} if zone else {})
