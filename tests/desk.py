"""A desk of real processes for tests: `m dev`, or separate `m web` and `m worker` processes, and the commands beside them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.servers import free_port
from worker.process import platform

ROOT = Path(__file__).resolve().parents[1]
READY = "M Desk is ready at "
SECRET_KEY = "a-secret-key-for-tests-that-is-long-enough-0123456789"
READY_TIMEOUT_S = 120.0


@dataclass
class Process:
    """One started `m ...` process and where its output goes."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    port: int | None = None

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, timeout_s: float = 60) -> int:
        """SIGTERM; returns the exit code. What does not end in time is killed and fails the test."""
        if self.alive():
            platform.ask_to_stop(self.popen)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            platform.kill_tree(self.popen)
            raise AssertionError(
                f"{self.name} did not stop within {timeout_s} s: {self.output()[-1500:]}"
            ) from None

    def kill(self) -> None:
        """SIGKILL to this process alone, as the kernel's OOM killer would."""
        self.popen.kill()
        self.popen.wait()


@dataclass
class Desk:
    """Everything under `home`; leaving the `with` block stops it. `environ` is added to each process's environment.

    `database_url` defaults to SQLite below `home`, `nats_url` to none: `dev()` embeds a nats-server then, and `web()` runs jobs itself.
    """

    home: Path
    jobs: str = ""
    environ: dict[str, str] = field(default_factory=dict)
    database_url: str | None = None
    nats_url: str | None = None
    processes: list[Process] = field(default_factory=list)
    _token: str | None = None

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Starting

    def dev(self, *arguments: str, port: int | None = None) -> Process:
        """`m dev`, until its ready line stands."""
        port = port or free_port()
        jobs = ["--jobs", self.jobs] if self.jobs else []
        process = self.start("dev", "--port", str(port), *jobs, *arguments, port=port)
        self.wait_for(lambda: READY in process.output(), process)
        return process

    def web(self, *arguments: str, port: int | None = None) -> Process:
        """One more `m web`, until /readyz answers 200."""
        port = port or free_port()
        process = self.start(
            "web", *arguments, port=port, environ={"M_PORT": str(port), "M_HOST": "127.0.0.1"}
        )
        self.wait_for(lambda: self.ready(process), process)
        return process

    def worker(self, *arguments: str) -> Process:
        """One more `m worker`. It is up when its row stands on the desk; most tests need not wait for it."""
        return self.start("worker", *arguments)

    def start(
        self, *arguments: str, port: int | None = None, environ: dict[str, str] | None = None
    ) -> Process:
        """Any `m ...` in the background, dying with the tests."""
        name = f"{arguments[0]}-{len(self.processes) + 1}"
        log = self.home / f"{name}.log"
        with log.open("wb") as output:
            popen = platform.spawn(self.command(*arguments), self.environment(environ), output)
        self.processes.append(process := Process(name, popen, log, port))
        return process

    def upgrade(self) -> None:
        """`m db upgrade`: needed before `web()` and `worker()` on an empty database; `dev()` does it itself."""
        self.m("db", "upgrade", check=True)

    # Using

    def m(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Runs `m ARGUMENTS` to its end with the desk's environment."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise AssertionError(
                f"m {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
            )
        return done

    @property
    def token(self) -> str:
        """An admin's API token, made at the first use."""
        if self._token is None:
            self._token = (
                self.m("token", "add", "tests", "--role", "admin", check=True).stdout.strip().splitlines()[-1]
            )
        return self._token

    @property
    def base(self) -> str:
        """The address of the first web process."""
        return next(process.base for process in self.processes if process.port)

    def call(
        self, method: str, path: str, body: Any = None, *, base: str | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        """One API request: status and decoded body."""
        headers = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            (base or self.base) + path, method=method, data=data, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def run(self, name: str, arguments: dict[str, Any] | None = None, **fields: Any) -> str:
        """Enqueues a job through the API; its id."""
        status, job = self.call("POST", "/api/v1/jobs", {"job_name": name, "args": arguments or {}, **fields})
        assert status == 202, job
        return str(job["job_id"])

    def until(self, job_id: str, *statuses: str, timeout_s: float = 60) -> dict[str, Any]:
        """The job once it has one of `statuses` (default: any terminal one)."""
        wanted = statuses or ("success", "failed", "cancelled")
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            job: dict[str, Any] = self.call("GET", f"/api/v1/jobs/{job_id}")[1]
            if job.get("status") in wanted:
                return job
            time.sleep(0.05)
        raise AssertionError(
            f"job {job_id} is {job.get('status')}, not {' or '.join(wanted)}, after {timeout_s} s"
        )

    # Ending

    def stop(self) -> None:
        """Stops what runs, the last started first."""
        for process in reversed(self.processes):
            if process.alive():
                process.stop()

    def keep_logs(self, name: str) -> None:
        """Copies the logs to test-results/, where a failed test's reader looks."""
        folder = ROOT / "test-results" / re.sub(r"[^\w.-]+", "-", name)
        folder.mkdir(parents=True, exist_ok=True)
        for process in self.processes:
            shutil.copy(process.log, folder)

    # Inside

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "worker.cli", *arguments]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """The machine's environment without any desk configuration of its own, plus this desk's."""
        ours = ("M_", "DATABASE_URL", "NATS_URL", "REDIS_URL")
        base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(ours) or name.startswith("M_TEST")
        }
        given = {
            "DATABASE_URL": self.database_url,
            "NATS_URL": self.nats_url,
            "M_JOB_MODULES": self.jobs or None,
        }
        return {
            **base,
            "M_HOME": str(self.home),
            "M_SECRET_KEY": SECRET_KEY,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            **{name: value for name, value in given.items() if value},
            **self.environ,
            **(more or {}),
        }

    def ready(self, process: Process) -> bool:
        try:
            with urllib.request.urlopen(f"{process.base}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    def wait_for(self, condition: Any, process: Process, timeout_s: float = READY_TIMEOUT_S) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            if not process.alive():
                raise AssertionError(
                    f"{process.name} ended with {process.popen.returncode}: {process.output()[-2000:]}"
                )
            if time.monotonic() > end:
                raise AssertionError(
                    f"{process.name} was not ready after {timeout_s} s: {process.output()[-2000:]}"
                )
            time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, on Linux and macOS."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = (int(word) for word in line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def exists(pid: int) -> bool:
    """Whether a process runs (one that has ended and was not collected does not)."""
    with contextlib.suppress(OSError):
        os.kill(pid, 0)
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
        ).stdout.strip()
        return bool(state) and not state.startswith("Z")
    return False


def interrupt(process: Process) -> None:
    """What Ctrl-C in a terminal sends."""
    process.popen.send_signal(signal.SIGINT)


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")
