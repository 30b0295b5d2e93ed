"""The legal moves of a job, as pure rules; `actions` and `recorder` are the only ones that make them."""

from __future__ import annotations

from typing import Literal

Status = Literal["scheduled", "queued", "running", "retrying", "success", "failed", "cancelled"]

MOVES: dict[str, frozenset[str]] = {
    "scheduled": frozenset({"queued", "cancelled"}),
    "retrying": frozenset({"queued", "cancelled"}),
    "queued": frozenset({"running", "cancelled", "scheduled"}),  # scheduled: a person moved run_at ahead
    "running": frozenset({"success", "failed", "retrying", "cancelled", "queued"}),
    "success": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}

EVENT_OF: dict[str, str] = {
    "queued": "job.queued",
    "running": "job.started",
    "success": "job.succeeded",
    "failed": "job.failed",
    "retrying": "job.retrying",
    "cancelled": "job.cancelled",
}


def may_move(before: str, after: str) -> bool:
    """Whether a job may go from one status to the other."""
    return after in MOVES[before]


def is_terminal(status: str) -> bool:
    return status in ("success", "failed", "cancelled")


def can_retry(status: str) -> bool:
    return status in ("failed", "cancelled")


def can_cancel(status: str) -> bool:
    return status in ("scheduled", "retrying", "queued", "running")


def can_edit(status: str) -> bool:
    """Arguments, priority and run_at may change while the job has not started."""
    return status in ("scheduled", "retrying", "queued")


def can_delete(status: str) -> bool:
    return is_terminal(status)


def effective_status(status: str, cancel_requested: bool) -> str:
    """What a person is shown: a running job that was asked to stop is `cancelling`."""
    return "cancelling" if status == "running" and cancel_requested else status
