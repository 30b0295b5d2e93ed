"""What a screen, an API answer and a live fragment know of a job: one shape for all three."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from worker.joblogs import states
from worker.jobs.secret import mask

FIRST_ARG_LENGTH = 120


@dataclass(frozen=True, slots=True)
class JobActions:
    """What may be done with a job as it stands; who may do it is the page's affair."""

    can_retry: bool
    can_cancel: bool
    can_rerun: bool
    can_edit: bool
    can_delete: bool


@dataclass(frozen=True, slots=True)
class JobView:
    """A job under the API's field names. Secrets are masked; a list leaves out `result` and `traceback`."""

    job_id: UUID
    job_name: str
    queue: str
    priority: int
    status: str
    reason: str | None
    args: dict[str, Any] | None
    """None in a list when the arguments are too long to be worth reading there."""
    result: Any
    error: str | None
    traceback: str | None
    error_fingerprint: str | None
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    duration_seconds: float | None
    attempt: int
    max_retries: int
    timeout_s: float
    progress: float | None
    progress_note: str | None
    worker: str | None
    """`host:pid` of the process that runs it, or ran it last."""
    worker_id: UUID | None
    user: str | None
    scheduled_job: UUID | None
    rerun_of: UUID | None
    caused_by: str | None
    unique_key: str | None
    correlation_id: str | None
    tags: tuple[str, ...]
    note: str | None
    cancel_requested_at: datetime | None
    resolved_at: datetime | None
    deleted_at: datetime | None
    lost_count: int
    epoch: int
    rev: int
    first_arg: str
    actions: JobActions

    @property
    def shown_status(self) -> str:
        return states.effective_status(self.status, self.cancel_requested_at is not None)

    @property
    def why(self) -> str | None:
        """The reason where it says more than the status: `timeout`, `poison`, …; not `error`, which the error tells."""
        return None if self.reason == "error" else self.reason


def job_view(row: Row[Any]) -> JobView:
    """The view of a row as `job_logs.COLUMNS` selects it; columns that were not selected are None."""
    args = getattr(row, "args", None)
    status, deleted = row.status, getattr(row, "deleted_at", None) is not None
    return JobView(
        job_id=row.id,
        job_name=row.job_name,
        queue=row.queue,
        priority=row.priority,
        status=status,
        reason=row.reason,
        args=mask(args) if args is not None else None,
        result=mask(getattr(row, "result", None)),
        error=row.error,
        traceback=getattr(row, "traceback", None),
        error_fingerprint=row.error_fingerprint,
        enqueued_at=row.enqueued_at,
        run_at=row.run_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        duration_seconds=duration_s(row.started_at, row.completed_at),
        attempt=row.attempt,
        max_retries=row.max_retries,
        timeout_s=row.timeout_s,
        progress=row.progress,
        progress_note=row.progress_note,
        worker=f"{row.worker_host}:{row.worker_pid}" if getattr(row, "worker_host", None) else None,
        worker_id=row.worker_id,
        user=row.user_id,
        scheduled_job=row.scheduled_job_id,
        rerun_of=row.rerun_of,
        caused_by=getattr(row, "caused_by", None),
        unique_key=getattr(row, "unique_key", None),
        correlation_id=getattr(row, "correlation_id", None),
        tags=tuple(str(tag) for tag in row.tags or ()),
        note=row.note,
        cancel_requested_at=row.cancel_requested_at,
        resolved_at=row.resolved_at,
        deleted_at=getattr(row, "deleted_at", None),
        lost_count=row.lost_count,
        epoch=row.epoch,
        rev=row.rev,
        first_arg=first_argument(args, getattr(row, "first_parameter", None)),
        actions=JobActions(
            can_retry=states.can_retry(status) and not deleted,
            can_cancel=states.can_cancel(status) and row.cancel_requested_at is None,
            can_rerun=states.is_terminal(status) and not deleted,
            can_edit=states.can_edit(status),
            can_delete=states.can_delete(status) and not deleted,
        ),
    )


def duration_s(started_at: datetime | None, completed_at: datetime | None) -> float | None:
    """How long the last execution took; None while it has no end."""
    if started_at is None or completed_at is None:
        return None
    return max(0.0, (completed_at - started_at).total_seconds())


def first_argument(args: dict[str, Any] | None, first_parameter: str | None) -> str:
    """The argument that tells runs of one job apart: the signature's first, else the first that was given."""
    if not args:
        return "" if args is not None else "…"
    key = first_parameter if first_parameter in args else next(iter(args))
    value = mask(args[key])
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text[: FIRST_ARG_LENGTH * 2].split())
    return text if len(text) <= FIRST_ARG_LENGTH else text[: FIRST_ARG_LENGTH - 1] + "…"
