"""Leaves out what libraries load for the sake of features that no process here uses: a third of a worker's start.

A finder in front of Python's own names the modules concerned. While one of them is loaded, the dependency it could do without is
hidden from it, and from nothing else: a job that imports aiohttp or rich gets the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

ABSENT = {
    "structlog.dev": "rich",  # coloured tracebacks
    "mako.exceptions": "pygments",  # coloured templates, which Alembic brings
    "httpx._main": "pygments",  # its command line
    "litestar.pagination": "advanced_alchemy",  # answers with an offset
}
"""The module takes the dependency for not installed."""

LATER = {
    "nats.aio.transport": "aiohttp",  # NATS over WebSockets
    "taskiq.middlewares.taskiq_admin_middleware": "aiohttp",  # reports to Taskiq's own admin server
}
"""The module gets the dependency when it first uses it."""


class Deferred(ModuleType):
    """Stands for a module inside one that imported it. An annotation that names its classes while that one is loaded gets Any."""

    importing = True

    def __getattr__(self, name: str) -> Any:
        return Any if self.importing else getattr(import_module(self.__name__), name)


class LeanFinder(MetaPathFinder):
    """Finds the modules named above as Python does, and has them loaded without their dependency."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ABSENT and fullname not in LATER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LeanLoader(spec.loader)
        return spec


class LeanLoader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if module.__spec__ is not None:
            module.__spec__.loader = self.real
        module.__loader__ = self.real
        with _hidden(ABSENT.get(name) or LATER[name], absent=name in ABSENT):
            self.real.exec_module(module)


@contextmanager
def _hidden(name: str, *, absent: bool) -> Iterator[None]:
    """Does nothing when somebody has loaded it already: then it costs nothing either."""
    if name in sys.modules:
        yield
        return
    deferred = Deferred(name)
    sys.modules[name] = None if absent else deferred  # type: ignore[assignment] # None: what the import system takes for "not there"
    try:
        yield
    finally:
        del sys.modules[name]
        deferred.importing = False


def install() -> None:
    """Once for a process, before the libraries are imported."""
    if not any(isinstance(finder, LeanFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeanFinder())
