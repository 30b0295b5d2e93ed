"""`from worker import broker`: Taskiq's way to write jobs, before any engine exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from worker.jobs.job import JobFunction
from worker.jobs.registry import from_labels

if TYPE_CHECKING:
    from worker.queue.broker import JobBroker

P = ParamSpec("P")
R = TypeVar("R")


class BrokerHandle:
    """Decorates at once; for everything else it is the broker of this process's engine, once that has started."""

    @overload
    def task(self, task_name: Callable[P, R], /) -> JobFunction[P, R]: ...
    @overload
    def task(
        self, task_name: str | None = None, **labels: Any
    ) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...
    def task(self, task_name: Any = None, **labels: Any) -> Any:
        """`@broker.task(name=…, queue=…, retry=…, timeout=…, schedule=…)`: the same as `@job`.

        Raises:
            BadJobDefinition: naming the job and the problem.
        """
        if callable(task_name):
            return from_labels(task_name, None, labels)
        name = labels.pop("name", None) or task_name
        return lambda function: from_labels(function, name, labels)

    @property
    def broker(self) -> JobBroker:
        """The engine's broker. Raises NotBound where no engine was started."""
        from worker.engine import Engine

        return Engine.bound().broker

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.broker, name)

    def __repr__(self) -> str:
        return "<the broker of this process's engine>"


broker = BrokerHandle()
