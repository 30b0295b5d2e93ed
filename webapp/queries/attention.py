"""What needs a person, most urgent first. Pure: what was read and the time come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode

from webapp.filters import plural, shortened, span
from webapp.queries.queues import QueueView
from webapp.queries.webhook_trouble import Trouble
from worker.joblogs.dead_letters import FailureGroup

NEW_FOR_S = 3600.0
"""A failure group that began within this is new, and stands above older ones."""
MOST_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Attention:
    """One line of the list. `failed` is broken now; `retrying` is a warning."""

    kind: Literal["failed", "retrying"]
    title: str
    detail: str
    href: str
    since: datetime | None = None
    link_words: str = "Show"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process knows of what it stands on, and when a queue is too long or too slow."""

    broker_connected: bool
    backplane_connected: bool
    late_after_s: float
    too_many: int
    unoffered: Mapping[str, int]
    """Jobs that wait and that no live worker can run, with how many wait."""
    late_schedules: int = 0
    late_schedule_at: datetime | None = None
    """How many schedules nobody has looked at in time, and the first instant that waits."""
    webhooks: Sequence[Trouble] = ()


def attention(
    groups: Sequence[FailureGroup], queues: Sequence[QueueView], around: Surroundings, now: datetime
) -> list[Attention]:
    """The machinery, queues nobody serves, late ones, webhooks, then failures: new groups before old ones."""
    return [
        *_machinery(around),
        *_schedules(around),
        *_unserved(queues),
        *_unoffered(queues, around),
        *_late(queues, around, now),
        *_webhooks(around),
        *_failures(groups, now),
        *_paused(queues),
    ]


def _machinery(around: Surroundings) -> list[Attention]:
    if not around.broker_connected:
        detail = "Accepted jobs are safe: workers read the database until it is back."
        return [Attention("failed", "The broker cannot be reached", detail, "/workers")]
    if not around.backplane_connected:
        return [
            Attention(
                "retrying", "Live updates come every second", "The backplane cannot be reached.", "/workers"
            )
        ]
    return []


def _schedules(around: Surroundings) -> list[Attention]:
    if not around.late_schedules:
        return []
    title = f"{plural(around.late_schedules, 'schedule')} late"
    detail = "No clerk looks at them: start m worker, which brings one."
    return [Attention("failed", title, detail, "/schedules", around.late_schedule_at)]


def _unserved(queues: Sequence[QueueView]) -> list[Attention]:
    return [
        Attention(
            "failed",
            f"No worker takes the queue {queue.name}",
            f"{plural(queue.waiting, 'job')} waiting",
            "/workers",
            queue.oldest_at,
        )
        for queue in queues
        if queue.waiting and not queue.has_worker
    ]


def _unoffered(queues: Sequence[QueueView], around: Surroundings) -> list[Attention]:
    """Said only while somebody takes jobs at all: without any worker the queues say it."""
    if not any(queue.has_worker for queue in queues):
        return []
    return [
        Attention(
            "failed",
            f"No worker can run the job {name}",
            f"{plural(n, 'job')} waiting",
            _rows(f"job:{name}", status="queued"),
        )
        for name, n in around.unoffered.items()
    ][:MOST_GROUPS]


def _late(queues: Sequence[QueueView], around: Surroundings, now: datetime) -> list[Attention]:
    found = []
    for queue in sorted(queues, key=lambda queue: queue.oldest_at or now):
        if not queue.has_worker or queue.paused_at or not queue.waiting:
            continue
        rows = _rows(f"queue:{queue.name}", status="queued")
        if queue.late and queue.oldest_at:
            waited = span((now - queue.oldest_at).total_seconds())
            words = f"The queue {queue.name} is late"
            detail = f"its oldest job has waited {waited}, {plural(queue.waiting, 'job')} in all"
            found.append(Attention("retrying", words, detail, rows, queue.oldest_at))
        elif queue.waiting >= around.too_many:
            words = f"The queue {queue.name} is long"
            found.append(
                Attention("retrying", words, f"{plural(queue.waiting, 'job')} waiting", rows, queue.oldest_at)
            )
    return found


def _webhooks(around: Surroundings) -> list[Attention]:
    return [
        Attention(
            "failed" if trouble.off_reason else "retrying",
            f"The webhook {trouble.name} {'was switched off' if trouble.off_reason else 'fails'}",
            shortened(trouble.off_reason, 160)
            if trouble.off_reason
            else f"{plural(trouble.failures, 'failure')} in a row",
            f"/webhooks/{trouble.webhook_id}",
            trouble.since,
        )
        for trouble in around.webhooks
    ]


def _failures(groups: Sequence[FailureGroup], now: datetime) -> list[Attention]:
    def is_old(group: FailureGroup) -> bool:
        return (now - group.first_at).total_seconds() > NEW_FOR_S

    ranked = sorted(groups, key=lambda group: (is_old(group), -group.last_at.timestamp()))
    return [
        Attention(
            "failed",
            f"{group.job_name}: {shortened(group.error, 160) or 'failed without a message'}",
            f"{plural(group.count, 'time')}{'' if is_old(group) else ', new'}",
            f"/dead-letters/{group.fingerprint}",
            group.last_at,
        )
        for group in ranked[:MOST_GROUPS]
    ]


def _paused(queues: Sequence[QueueView]) -> list[Attention]:
    return [
        Attention(
            "retrying",
            f"The queue {queue.name} is paused",
            f"{queue.pause_reason or 'no reason given'}, {plural(queue.waiting, 'job')} waiting",
            _rows(f"queue:{queue.name}", status="queued"),
            queue.paused_at,
        )
        for queue in queues
        if queue.paused_at and queue.waiting
    ]


def _rows(search: str, *, status: str) -> str:
    return "/job-logs?" + urlencode({"status": status, "f": search})
