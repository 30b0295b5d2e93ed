"""The types of events that the desk itself tells, for whoever writes a pattern. Pure."""

from __future__ import annotations

from typing import Final

TYPES: Final = (
    "catalogue.limited", "catalogue.paused", "catalogue.resumed", "doc.cancelled", "doc.created",
    "doc.deleted", "doc.submitted", "doc.updated", "job.cancelled", "job.deleted", "job.failed", "job.lost",
    "job.queued", "job.restored", "job.retrying", "job.scheduled", "job.settled", "job.started",
    "job.succeeded", "queue.backlog", "queue.caught_up", "queue.limited", "queue.paused", "queue.resumed",
    "schedule.changed", "schedule.created", "schedule.deleted", "schedule.fired", "schedule.missed",
    "schedule.paused", "schedule.resumed", "schedule.retired", "webhook.changed", "webhook.created",
    "webhook.deleted", "webhook.disabled", "webhook.enabled", "webhook.rotated", "worker.lost",
)  # fmt: skip
