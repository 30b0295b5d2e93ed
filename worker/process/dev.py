"""`m dev`: the whole desk on one machine. A nats-server of our own, the migrations, one web process, one worker, and a ready line.

The processes are separate, as in production; this one only starts, watches, restarts and stops them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import PortTaken
from worker.process import platform
from worker.process.nats_server import NatsServer, NatsServerError
from worker.settings import Settings

CONFIGURATION = 78
PREPARE = "import sys; from worker.cli import run; sys.exit(run(['db', 'upgrade']) or run(['setup-link', '--if-needed']))"
"""Two commands in one process: each start of Python costs a second of a desk that somebody waits for."""
TICK_S = 0.1
READY_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 35.0
"""A worker drains 25 s and releases the rest; past this it is killed."""
STOP_TIMEOUT_S = 15.0
IMPATIENT_AFTER_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S, HEALTHY_AFTER_S = 0.5, 30.0, 30.0


def run_dev(
    settings: Settings,
    port: int,
    jobs: Iterable[str] = (),
    memory: bool = False,
    reload: bool = False,
) -> int:
    """Runs the desk until Ctrl-C or SIGTERM and returns the exit code: 0, or 78 when it cannot start as configured.

    `jobs` names job modules (default: those of `settings`). With `memory` there is neither broker nor worker: the web process
    runs the jobs. With `reload` the web process and the worker start again when a file of theirs changes.
    """
    with platform.locked(settings.home / "dev.lock") as free:
        if not free:
            return _refuse(
                f"another `m dev` runs in {settings.home}. Stop it, or choose another place with M_HOME."
            )
        if _taken(settings.host, port):
            return _refuse(str(PortTaken(host=settings.host, port=port)))
        modules = tuple(jobs) or settings.job_modules
        embed = not (memory or settings.nats_url or settings.redis_url)
        return Desk(settings, port, modules, embed, memory).run(Watcher(modules) if reload else None)


@dataclass
class Child:
    """One process that is started again, ever more slowly, when it ends by itself."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    stop_timeout_s: float
    process: subprocess.Popen[bytes] | None = None
    pause_s: float = FIRST_PAUSE_S
    started_at: float = 0.0
    start_at: float | None = None

    def ensure(self, now: float) -> None:
        """Starts it if it is due; notices if it ended and says when it will be started again."""
        if (code := self.ended()) is not None:
            self._start_later(code, now)
        if self.process is None and (self.start_at is None or now >= self.start_at):
            self.process, self.started_at = self.start(), now

    def ended(self) -> int | None:
        """The exit code of a process that ended since the last look."""
        return self.process.poll() if self.process else None

    def stop(self) -> None:
        """Asks it to end in order and waits; kills what does not, with all it started."""
        if self.process is None:
            return
        platform.ask_to_stop(self.process)
        try:
            self.process.wait(self.stop_timeout_s)
        except subprocess.TimeoutExpired:
            _say(f"{self.name} did not stop within {self.stop_timeout_s:.0f} s and is killed")
        platform.kill_tree(self.process)
        self.process, self.start_at, self.pause_s = None, None, FIRST_PAUSE_S

    def _start_later(self, code: int, now: float) -> None:
        if self.process is not None:
            platform.kill_tree(
                self.process
            )  # what a crashed process left behind would hold its port and its jobs
        if now - self.started_at > HEALTHY_AFTER_S:
            self.pause_s = FIRST_PAUSE_S
        _say(f"{self.name} ended with {_words(code)}; it starts again in {self.pause_s:g} s")
        self.process, self.start_at = None, now + self.pause_s
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)


@dataclass
class Desk:
    """The processes of one `m dev`, in the order in which they start. They stop in the order worker, web, nats-server."""

    settings: Settings
    port: int
    modules: tuple[str, ...]
    embed: bool
    memory: bool
    nats: NatsServer | None = None
    children: list[Child] = field(default_factory=list)
    stopping: bool = False
    stopping_at: float = 0.0

    def run(self, watcher: Watcher | None) -> int:
        platform.on_stop_request(self._stop_soon)
        try:
            return self._run(watcher)
        except NatsServerError as error:
            return _refuse(str(error))
        finally:
            self._stop()

    def _run(self, watcher: Watcher | None) -> int:
        if self.embed:
            self.nats = NatsServer(self.settings.home / "nats")
            self.nats.start()
        code, link = self._prepare()
        if code or self.stopping:
            return 0 if self.stopping else code
        self.children = self._children()
        if (failure := self._until_ready()) is not None:
            return failure
        if link:
            print(f"Set up the first administrator (works once): {link}")
        print(f"M Desk is ready at {self._address()}", flush=True)
        return self._watch(watcher)

    def _children(self) -> list[Child]:
        children = (
            [Child("nats-server", self._restart_nats, STOP_TIMEOUT_S, self.nats.process)] if self.nats else []
        )
        children.append(Child("web", lambda: self._spawn("web"), STOP_TIMEOUT_S))
        if not self.memory:
            children.append(Child("worker", lambda: self._spawn("worker"), DRAIN_TIMEOUT_S))
        return children

    def _until_ready(self) -> int | None:
        """None once the web process answers; an exit code when a process ends before, which trying again will not mend."""
        end = time.monotonic() + READY_TIMEOUT_S
        while not self.stopping:
            now = time.monotonic()
            for child in self.children:
                if (code := child.ended()) is not None:
                    _say(f"{child.name} could not start ({_words(code)}); what it said stands above")
                    return CONFIGURATION if code == CONFIGURATION else 1
                child.ensure(now)
            if self._ready():
                return None
            if now > end:
                _say(f"the desk does not answer after {READY_TIMEOUT_S:.0f} s")
                return 1
            time.sleep(TICK_S / 2)
        return 0

    def _watch(self, watcher: Watcher | None) -> int:
        next_look = time.monotonic() + 1
        while not self.stopping:
            now = time.monotonic()
            for child in self.children:
                if child.ended() == CONFIGURATION and not watcher:  # only an edit would mend it
                    return _refuse(f"{child.name} ended: what it said about its configuration stands above")
                child.ensure(now)
            if watcher and now >= next_look:
                next_look = now + 1
                if changed := watcher.changed():
                    self._reload(changed)
            time.sleep(TICK_S)
        return 0

    def _reload(self, changed: Path) -> None:
        _say(f"{changed.name} changed: starting again")
        for child in reversed(self.children):
            if child.name != "nats-server":
                child.stop()

    def _stop(self) -> None:
        for child in reversed(self.children):
            if child.name != "nats-server":
                child.stop()
        if self.nats:
            self.nats.stop()

    def _stop_soon(self) -> None:
        """The first request drains. A person who asks again, not at once, does not want to wait for that."""
        now = time.monotonic()
        if self.stopping and now - self.stopping_at > IMPATIENT_AFTER_S:
            for child in self.children:
                if child.process:
                    platform.kill_now(child.process)
        self.stopping, self.stopping_at = True, self.stopping_at or now

    # The processes

    def _spawn(self, name: str) -> subprocess.Popen[bytes]:
        return platform.spawn(_command_line(name), self._environment())

    def _restart_nats(self) -> subprocess.Popen[bytes]:
        assert self.nats
        self.nats.start()
        assert self.nats.process
        return self.nats.process

    def _prepare(self) -> tuple[int, str]:
        """Migrates, in a process of its own; its exit code, and the set-up link if nobody has been set up yet."""
        with tempfile.TemporaryFile() as output:
            process = platform.spawn(
                [sys.executable, "-c", PREPARE], self._environment(), output, sys.stderr.fileno()
            )
            while process.poll() is None:
                if self.stopping:
                    platform.kill_tree(process)
                time.sleep(TICK_S / 5)
            output.seek(0)
            words = output.read().decode(errors="replace").split()
        link = words[-1] if words else ""
        return process.returncode, link if "://" in link else ""

    def _environment(self) -> Mapping[str, str]:
        """What the children see: this process's environment with the decisions of `m dev`."""
        environ = dict(os.environ)
        ours = {
            "M_HOME": str(self.settings.home),
            "M_HOST": self.settings.host,
            "M_PORT": str(self.port),
            "M_JOB_MODULES": ",".join(self.modules),
            "PYTHONUNBUFFERED": "1",
        }
        if self.nats:
            ours["NATS_URL"] = self.nats.url
        if self.memory:
            for name in ("NATS_URL", "REDIS_URL"):
                environ.pop(name, None)
                environ.pop(f"{name}_FILE", None)
        for name in ours:
            environ.pop(f"{name}_FILE", None)
        return {**environ, **ours}

    def _ready(self) -> bool:
        web = next(child for child in self.children if child.name == "web")
        if web.process is None or web.process.poll() is not None:
            return False
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"{self._address()}/readyz", timeout=2) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def _address(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.settings.host, self.settings.host)  # noqa: S104 # not a bind
        return f"http://{host}:{self.port}"


class Watcher:
    """Tells which Python file of the desk or of the job modules changed since the last look. Looks at times, once a second."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.roots = [Path(__file__).resolve().parents[1], *_roots(modules)]
        webapp = self.roots[0].with_name("webapp")
        self.roots += [webapp] if webapp.exists() else []
        self.seen = dict(self._times())

    def changed(self) -> Path | None:
        now = dict(self._times())
        before, self.seen = self.seen, now
        different = now.items() ^ before.items()
        return min((path for path, _ in different), default=None)

    def _times(self) -> Iterator[tuple[Path, int]]:
        for root in self.roots:
            for path in root.rglob("*.py") if root.is_dir() else [root]:
                with contextlib.suppress(OSError):
                    yield path, path.stat().st_mtime_ns


def _roots(modules: Iterable[str]) -> Iterator[Path]:
    """The folder or the file of each module's top-level package, found without importing it."""
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` in the children has it
    try:
        for name in {module.split(".")[0] for module in modules}:
            spec = importlib.util.find_spec(name)
            if spec and spec.submodule_search_locations:
                yield from (Path(folder) for folder in spec.submodule_search_locations)
            elif spec and spec.origin:
                yield Path(spec.origin)
    finally:
        sys.path.pop(0)


def _command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "worker.cli", *arguments]


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        if not platform.WINDOWS:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError:
            return True
    return False


def _words(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _refuse(reason: str) -> int:
    _say(reason)
    return CONFIGURATION


def _say(text: str) -> None:
    print(f"m dev: {text}", file=sys.stderr, flush=True)
