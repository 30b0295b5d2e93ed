"""Conditions and payload templates, evaluated in a child process that is killed when it takes too much; `evaluator` is the
other end of the pipe.

The child is kept warm and replaced when it was killed. What killed it once is refused at once for a minute, so that one
webhook's expression does not hold up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from worker.errors import EvaluationAway

MEMORY_BYTES: Final = 256 * 1024 * 1024
CPU_S: Final = 0.5
WALL_S: Final = 5.0
"""The limit by the clock: what half a second of computing may take on a machine that is very busy."""
START_S: Final = 30.0
BLAMED_S: Final = 60.0
MOST_BLAMED: Final = 200
LONGEST: Final = {"condition": 2_000, "template": 20_000}
"""Characters of a source."""
LINE_LIMIT: Final = 8 * 1024 * 1024

Kind = Literal["condition", "template"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition is true of an event, and the value that decided it, as JSON of at most 1,000 characters."""

    matched: bool
    value: str = ""
    error: str | None = None
    killed: bool = False
    """Whether it took too much and was ended, now or within the last minute."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The body that a template makes of an event, or why it makes none; `text` is then as much of it as there is."""

    body: bytes | None
    error: str | None = None
    text: str | None = None


class Sandbox:
    """One for each loop that evaluates. The child starts with the first question; `close` ends it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._blamed: dict[str, tuple[float, str]] = {}

    async def condition(self, expression: str, event: Mapping[str, Any]) -> Verdict:
        """Whether a JMESPath expression is true of an event: of all values but false, null and what is empty.

        Raises:
            EvaluationAway: the child cannot be started.
        """
        said = await self._ask(expression, {"ask": "condition", "event": event})
        if "error" in said:
            return Verdict(matched=False, error=said["error"], killed=said.get("spent", False))
        return Verdict(said["matched"], said["value"])

    async def render(
        self, template: str, event: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> Rendered:
        """The body of an event by a Jinja template, which must make JSON; `about` is what it may name beside the event.

        Raises:
            EvaluationAway: the child cannot be started.
        """
        said = await self._ask(template, {"ask": "render", "event": event, "about": about or {}})
        if "error" in said:
            return Rendered(None, said["error"], said.get("text"))
        return Rendered(said["body"].encode())

    async def check(self, kind: Kind, source: str) -> str | None:
        """What is wrong with an expression or a template in itself, and what is allowed; None when it can be read.

        Raises:
            EvaluationAway: the child cannot be started.
        """
        if not 0 < len(source) <= LONGEST[kind]:
            return f"must have 1 to {LONGEST[kind]} characters"
        said = await self._ask(source, {"ask": "check", "kind": kind})
        return said.get("error")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._end()

    async def _ask(self, source: str, question: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            if (words := self._blame(source)) is not None:
                return {"error": words, "spent": True}
            said = await self._exchange({**question, "source": source})
            if said.get("spent"):
                self._accuse(source, said["error"])
                await self._end()
                self._starting = asyncio.create_task(self._start())
            return said

    async def _exchange(self, question: dict[str, Any]) -> dict[str, Any]:
        """One question and its answer; a child that answers no more, or whose asker has gone, is ended."""
        child = await self._warm()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            async with asyncio.timeout(WALL_S):
                child.stdin.write(json.dumps(question).encode() + b"\n")
                with contextlib.suppress(ConnectionError):
                    await child.stdin.drain()
                line = await child.stdout.readline()
        except TimeoutError:
            return {"error": f"did not answer within {WALL_S:g} s", "spent": True}
        except BaseException:
            await self._end()
            raise
        if not line:
            return {"error": _how_it_ended(await child.wait()), "spent": True}
        said: dict[str, Any] = json.loads(line)
        return said

    async def _warm(self) -> asyncio.subprocess.Process:
        if self._starting is not None:
            starting, self._starting = self._starting, None
            await starting
        if self._child is None or self._child.returncode is not None:
            await self._start()
        assert self._child is not None
        return self._child

    async def _start(self) -> None:
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(Path(__file__).with_name("evaluator.py")),
                str(MEMORY_BYTES),
                str(CPU_S),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
                env=_environment(),
            )
        except OSError as error:
            raise EvaluationAway(cause=str(error)) from error
        self._child = child
        assert child.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                ready = await child.stdout.readline()
        except TimeoutError:
            ready = b""
        except BaseException:
            await self._end()
            raise
        if not ready:
            await self._end()
            raise EvaluationAway(cause="its process does not start")

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                if child.returncode is None:
                    child.kill()
            await asyncio.shield(child.wait())

    def _blame(self, source: str) -> str | None:
        until, words = self._blamed.get(source, (0.0, ""))
        return words if asyncio.get_running_loop().time() < until else None

    def _accuse(self, source: str, words: str) -> None:
        if len(self._blamed) >= MOST_BLAMED:
            self._blamed.pop(next(iter(self._blamed)))
        self._blamed[source] = (asyncio.get_running_loop().time() + BLAMED_S, words)


def _environment() -> dict[str, str]:
    """Nothing of this process's own: it holds secrets."""
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}


def _how_it_ended(code: int) -> str:
    if code == -getattr(signal, "SIGPROF", 0):
        return f"took more than {CPU_S * 1000:.0f} ms"
    return f"ended the process that evaluates it: it may use {MEMORY_BYTES // 2**20} MB and {CPU_S * 1000:.0f} ms"
