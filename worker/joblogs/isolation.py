"""A job in a process of its own: started, listened to line by line, killed when it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog

from worker.db.session import Doorbell, Pending
from worker.joblogs.storable import Unstorable
from worker.jobs.job import Job
from worker.jobs.secret import NOTHING_SECRET, Redactor
from worker.process import forking, platform

if TYPE_CHECKING:
    from worker.joblogs.hold import Hold

log = structlog.get_logger(__name__)

LINE_LIMIT = 16 * 1024 * 1024
"""The longest message a child may send: results are judged by `storable` afterwards."""


class ProcessDied(Exception):
    """The job's process ended without saying how the job did."""


class DiedWithOthers(ProcessDied):
    """So did others of the same worker, at once, with the process that had forked them."""


class RemoteError(Exception):
    """An error in a process of the job's own: its text and traceback are all that came back."""

    def __init__(self, kind: str, text: str, traceback: str | None, after_s: float | None = None) -> None:
        super().__init__(text)
        self.kind, self.text, self.traceback, self.after_s = kind, text, traceback, after_s


async def run_in_process(
    hold: Hold,
    job: Job,
    args: dict[str, Any],
    redactor: Redactor = NOTHING_SECRET,
    answer: Callable[[Any], Any] = lambda result: result,
) -> Any:
    """Runs the job in a process as `python -m worker.jobs.isolated` is one, and answers what `answer` makes of its result.

    `answer` is called as soon as the result is there; this returns when the process has ended.

    The child reads one JSON line (see `_order`) and answers JSON lines on its standard output, which it takes away
    from the job's own prints: `{"progress": [value, note]}`, `{"log": [level, message, logger]}`, and in the end
    `{"result": value}` or `{"error": text, "traceback": text, "kind": "error" | "retry" | "discard" | "unstorable", "after_s": s}`.

    What it has started and left in its group is killed with it, unless it had its last word: then what runs may go on.

    Raises:
        RemoteError: the job raised. ProcessDied: the process ended without a last word.
    """
    process = await _start()
    hold.on_ask(lambda: _kill(process))
    assert process.stdin is not None
    last_word = None
    try:
        hold.begun = True
        process.stdin.write(json.dumps(_order(hold, job, args)).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        last_word = await _listen(hold, process, redactor)
        return answer(_result(last_word))
    except ConnectionError:  # it died before it had read all that was said to it
        raise await _death(process) from None
    finally:
        if last_word is None:
            platform.kill_group(process)
        else:
            _kill_alone(process)
        await asyncio.shield(process.wait())
        process.stdin.close()


class Process(Protocol):
    """What is needed of `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> asyncio.StreamWriter | None: ...
    @property
    def stdout(self) -> asyncio.StreamReader | None: ...
    @property
    def returncode(self) -> int | None: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...


class ForkedProcess:
    """A process that the job server forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.returncode: int | None = None
        self.with_others = False
        self._grip = forking.Grip(pid)
        self._told, self._over = asyncio.Event(), asyncio.Event()
        if (descriptor := self._grip.fileno()) is None:
            self._over = self._told
        else:
            asyncio.get_running_loop().add_reader(descriptor, self._ended, descriptor)

    def kill(self) -> None:
        self._grip.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        await self._over.wait()
        await self._told.wait()
        assert self.returncode is not None
        return self.returncode

    def told(self, code: int) -> None:
        """How it ended, by its job server; or that there is no job server any more."""
        self.returncode = code
        self._told.set()

    def _ended(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        self._grip.let_go()
        self._over.set()


class JobServer:
    """The line to the process that `worker.process.fork_server` leaves beside a worker child."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        line.setblocking(False)
        self._line = line
        self._pid = pid
        self.gone = False
        self._listens = False
        self._asked: deque[asyncio.Future[ForkedProcess]] = deque()
        self._living: dict[int, ForkedProcess] = {}

    async def start(self) -> ForkedProcess:
        """Raises OSError: it is gone, has too much to do, or may not."""
        loop = asyncio.get_running_loop()
        if not self._listens:
            loop.add_reader(self._line, self._heard)
            self._listens = True
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._line, [b"{}"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        future: asyncio.Future[ForkedProcess] = loop.create_future()
        self._asked.append(future)
        try:
            process = await asyncio.shield(future)
            process.stdout, process.stdin = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT)
        except BaseException:
            ours.close()  # a process without an order ends by itself
            raise
        return process

    def _heard(self) -> None:
        try:
            message = self._line.recv(forking.LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._end()
            return
        pid, code = json.loads(message)
        if code is not None:
            self._living.pop(pid).told(code)
        elif pid:
            self._living[pid] = process = ForkedProcess(pid)
            self._asked.popleft().set_result(process)
        else:
            self._asked.popleft().set_exception(BlockingIOError("the system allows no more processes"))

    def _end(self) -> None:
        """With it go those that it has forked; the next ones are started without it."""
        self.gone = True
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        for process in self._living.values():
            process.with_others = len(self._living) > 1
            process.told(-signal.SIGKILL)
        for future in self._asked:
            future.set_exception(ConnectionError("the job server is gone"))


server: JobServer | None = None
"""Of this process, where it was born with one: a job's process then starts in a fraction of the time."""


async def _start() -> Process:
    if server is not None and not server.gone:
        try:
            return await server.start()
        except OSError as error:
            log.warning(
                "The job server does not answer; the job's process is started without it", error=str(error)
            )
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker.jobs.isolated",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
    )


def _environment(hold: Hold) -> dict[str, str]:
    """This process's own, with the settings that the child's database and secrets must share with it."""
    settings = hold.engine.settings
    shared = {
        "DATABASE_URL": settings.database_url,
        "M_SECRET_KEY": settings.secret_key,
        "M_HOME": str(settings.home),
    }
    files = {f"{name}_FILE" for name in shared}
    return {name: value for name, value in os.environ.items() if name not in files} | shared


def _order(hold: Hold, job: Job, args: dict[str, Any]) -> dict[str, Any]:
    """What the child needs to know: its environment, the code, the arguments, the facts of the execution."""
    held = hold.claimed
    return {
        "environ": _environment(hold),
        "modules": list(hold.engine.registry.modules),
        "job_name": job.name,
        "args": args,
        "worker_id": str(hold.worker_id),
        "claimed": {
            "id": str(held.id),
            "queue": held.queue,
            "priority": held.priority,
            "attempt": held.attempt,
            "max_retries": held.max_retries,
            "timeout_s": held.timeout_s,
            "epoch": held.epoch,
            "rev": held.rev,
            "enqueued_at": held.enqueued_at.isoformat(),
            "run_at": held.run_at.isoformat(),
            "started_at": held.started_at.isoformat(),
            "user_id": held.user_id,
            "checkpoint": held.checkpoint,
            "correlation_id": held.correlation_id,
            "caused_by": held.caused_by,
        },
    }


async def _listen(hold: Hold, process: Process, redactor: Redactor) -> dict[str, Any]:
    """Passes on what the child says, and answers its last word."""
    assert process.stdout is not None
    async for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            value, note = message["progress"]
            hold.progress(value, redactor.text(note) if note else note)
        elif "log" in message:
            level, text, logger = message["log"]
            hold.line(level, redactor.text(text), logger)
        elif "committed" in message:
            await _announce(hold, message["committed"])
        else:
            return dict(message)
    raise await _death(process)


def _result(last_word: dict[str, Any]) -> Any:
    """Raises Unstorable and RemoteError: what it was in the child."""
    if last_word.get("kind") == "unstorable":
        raise Unstorable(last_word["error"])
    if "error" in last_word:
        raise RemoteError(
            last_word.get("kind", "error"),
            last_word["error"],
            last_word.get("traceback"),
            last_word.get("after_s"),
        )
    return last_word["result"]


async def _death(process: Process) -> ProcessDied:
    words = f"its process {_how_it_ended(await process.wait())} before the job had ended"
    with_others = isinstance(process, ForkedProcess) and process.with_others
    return DiedWithOthers(words) if with_others else ProcessDied(words)


async def _announce(hold: Hold, said: dict[str, Any]) -> None:
    """What the child committed is told by this process, which has the connections for it."""
    listener = hold.engine.database.on_commit
    if listener is not None:
        rings = [Doorbell(UUID(job_id), queue, priority) for job_id, queue, priority in said["rings"]]
        changes = {(kind, key): rev for kind, key, rev in said["changes"]}
        signals = [(UUID(worker_id), message) for worker_id, message in said["signals"]]
        outbox = [UUID(row_id) for row_id in said["outbox"]]
        await listener(Pending(rings=rings, changes=changes, signals=signals, outbox_ids=outbox))


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _kill(process: Process) -> None:
    if process.returncode is None:
        platform.kill_group(process)


def _kill_alone(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()
