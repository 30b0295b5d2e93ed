"""A job in a process of its own: started, listened to line by line, killed when it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from uuid import UUID

from worker.db.session import Doorbell, Pending
from worker.joblogs.storable import Unstorable
from worker.jobs.job import Job
from worker.jobs.secret import NOTHING_SECRET, Redactor

if TYPE_CHECKING:
    from worker.joblogs.hold import Hold

LINE_LIMIT = 16 * 1024 * 1024
"""The longest message a child may send: results are judged by `storable` afterwards."""


class ProcessDied(Exception):
    """The job's process ended without saying how the job did."""


class RemoteError(Exception):
    """An error in a process of the job's own: its text and traceback are all that came back."""

    def __init__(self, kind: str, text: str, traceback: str | None, after_s: float | None = None) -> None:
        super().__init__(text)
        self.kind, self.text, self.traceback, self.after_s = kind, text, traceback, after_s


async def run_in_process(
    hold: Hold, job: Job, args: dict[str, Any], redactor: Redactor = NOTHING_SECRET
) -> Any:
    """Runs the job in `python -m worker.jobs.isolated` and answers its result.

    The child reads one JSON line (see `_order`) and answers JSON lines on its standard output, which it takes away
    from the job's own prints: `{"progress": [value, note]}`, `{"log": [level, message, logger]}`, and in the end
    `{"result": value}` or `{"error": text, "traceback": text, "kind": "error" | "retry" | "discard" | "unstorable", "after_s": s}`.

    Raises:
        RemoteError: the job raised. ProcessDied: the process ended without a last word.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker.jobs.isolated",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        env=_environment(hold),
    )
    hold.on_ask(lambda: _kill(process))
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(_order(hold, job, args)).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
        return await _listen(hold, process, redactor)
    finally:
        _kill(process)
        await asyncio.shield(process.wait())


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
    """What the child needs to know: the code, the arguments, the facts of the execution."""
    held = hold.claimed
    return {
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


async def _listen(hold: Hold, process: asyncio.subprocess.Process, redactor: Redactor) -> Any:
    """Passes on what the child says until its last word."""
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
        elif message.get("kind") == "unstorable":
            raise Unstorable(message["error"])
        elif "error" in message:
            raise RemoteError(
                message.get("kind", "error"),
                message["error"],
                message.get("traceback"),
                message.get("after_s"),
            )
        else:
            return message["result"]
    raise ProcessDied(f"its process {_how_it_ended(await process.wait())} before the job had ended")


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


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.kill()
