"""The engine of M Desk: everything that happens when no browser is open.

    jobs/       what people write: `@job`, its signature, its retries, the context it gets
    joblogs/    one request to run a job, with its whole life; the only writers of it
    queue/      how a job's doorbell reaches a worker
    events/     facts in the past tense, recorded with the change that made them true
    live/       how open browsers hear of changes
    accounts/   who may look, who may act, who did what
    process/    the processes that all this runs in
    db/         tables, sessions, migrations
    engine.py   puts it together; settings.py and errors.py are one screen each

A module of jobs needs no more than `from worker import job, JobContext, Retry, Discard, Secret, cron`. Importing this
package opens nothing and is quick: what is heavy is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker import lean
from worker.jobs.context import JobContext
from worker.jobs.cron import cron
from worker.jobs.job import job
from worker.jobs.retry import Discard, Retry, RetryPolicy
from worker.jobs.secret import Secret

lean.install()

if TYPE_CHECKING:
    from worker.engine import enqueue_sync
    from worker.joblogs.actions import enqueue, enqueue_many
    from worker.jobs.handle import broker

__all__ = [
    "Discard", "JobContext", "Retry", "RetryPolicy", "Secret", "broker", "cron", "enqueue", "enqueue_many",
    "enqueue_sync", "job",
]  # fmt: skip

_LATER = {
    "broker": "worker.jobs.handle",
    "enqueue": "worker.joblogs.actions",
    "enqueue_many": "worker.joblogs.actions",
    "enqueue_sync": "worker.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
