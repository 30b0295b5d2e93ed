"""What becomes of a job that was cut off: its worker died, a process of its own died, or its worker left. Pure rules."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.joblogs.models import JobLog

ALONE_AFTER = 2
"""Losses after which a job runs in a process of its own: a neighbour may have been the cause of these."""
POISON_AFTER = 3
"""Deaths of a process that ran nothing else, after which the job fails as poison."""
HOPELESS_AFTER, HOPELESS_SHARE = 20, 0.8
"""A job that has a process of its own and still lost so many workers, and that share of all that ended meanwhile, takes them along."""
HOPELESS_ANYWAY = 100
STOPPING_TIME = timedelta(seconds=20)
"""A job may take this long to stop when its time is over; a process that dies later was ended for it."""

Place = tuple[str, str | None]
"""A status and its reason."""


def cut_off(*, fragile: bool, guilty: bool = False) -> Place:
    """Where a job goes whose code had begun and was cut off. `fragile`: it says `on_lost="fail"`. `guilty`: it did it itself."""
    if fragile:
        return "failed", "worker_lost"
    if guilty:
        return "failed", "poison"
    return "queued", None


def after_loss(job: JobLog, *, fragile: bool, overdue: bool, ended: int) -> Place:
    """Where a job goes whose worker died under it. `ended`: how many others did since the first of its last twenty losses.

    Running out of time uses up a retry, dying with a worker does not. Nor does it convict: in company a neighbour may
    have been the cause, and alone the job has a process of its own whose death its worker would have told. Where workers
    keep ending without the job, it is not the job that ends them.
    """
    if job.cancel_requested_at is not None:
        return "cancelled", "cancelled"
    if overdue:
        return ("retrying" if job.attempt <= job.max_retries else "failed"), "timeout"
    return cut_off(fragile=fragile, guilty=_is_hopeless(job.lost_count + 1, ended))


def is_overdue(job: JobLog, last_seen: datetime | None) -> bool:
    """Whether the job outran its time limit while its process lived: then that is why it was ended.

    When it is found dead says nothing: that may be hours later, when a host is switched on again.
    """
    if job.started_at is None or last_seen is None:
        return False
    return last_seen - job.started_at > timedelta(seconds=job.timeout_s) + STOPPING_TIME


def lane_after(losses: int) -> str:
    """Where a job that was put back waits after so many losses."""
    return "alone" if losses >= ALONE_AFTER else "rescue"


def _is_hopeless(losses: int, ended: int) -> bool:
    to_blame = losses >= HOPELESS_AFTER and ended * HOPELESS_SHARE <= HOPELESS_AFTER
    return to_blame or losses >= HOPELESS_ANYWAY
