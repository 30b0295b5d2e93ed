"""What the API reads and answers. A field's description is also the message when its value is not allowed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from webapp.queries.job_logs import SORTS
from webapp.queries.one_job import AttemptView, LogLineView
from webapp.queries.views import JobView
from worker.joblogs.states import Status
from worker.jobs.rate import MOST_BURST, MOST_PER_S

Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339, UTC")]
Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1, le=200)]
QueueName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z")]
Priority = Annotated[int, Meta(ge=0, le=9)]
When = Annotated[datetime, Meta(tz=True)]
Key = Annotated[str, Meta(min_length=1, max_length=200)]
Retries = Annotated[int, Meta(ge=0, le=1000)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Tag = Annotated[str, Meta(min_length=1, max_length=60)]
Tags = Annotated[list[Tag], Meta(max_length=20)]
Slots = Annotated[int, Meta(ge=1, le=100_000)]
PerSecond = Annotated[float, Meta(ge=1 / 86_400, le=MOST_PER_S)]
Burst = Annotated[int, Meta(ge=1, le=MOST_BURST)]
Reason = Annotated[str, Meta(max_length=500)]
Role = Literal["viewer", "operator", "admin"]
Sort = Literal["enqueued", "started", "completed", "duration"]
BulkAction = Literal["retry", "cancel", "delete", "resolve", "rerun"]

ARGS = "an object: the function's arguments by name"
QUEUE = "a queue name: a-z, 0-9, _ and -, beginning with a letter or digit, at most 63 characters"
PRIORITY = "a whole number from 0 (first) to 9 (last)"
RUN_AT = "an instant with its offset, like 2026-11-22T09:00:00Z"
TAGS = "a list of at most 20 texts of 1 to 60 characters"
NOTE = "a text of at most 10,000 characters"
LIMIT = "a whole number from 1 to 200"
CURSOR = "the `next_cursor` of the page before"
STATUS = "one or more of scheduled, queued, running, retrying, success, failed, cancelled"
ROLE = "viewer, operator or admin"

assert set(SORTS) == set(Sort.__args__)  # type: ignore[attr-defined]  # what typing keeps of a Literal


class Action(Struct):
    """What may be done with the job as it stands."""

    can_retry: bool
    can_cancel: bool
    can_rerun: bool
    can_edit: bool
    can_delete: bool


class Attempt(Struct):
    """One execution of a job."""

    attempt: int
    epoch: int
    outcome: str
    reason: str | None
    worker: str | None
    started_at: Instant | None
    ended_at: Instant | None
    duration_seconds: float | None
    error: str | None
    traceback: str | None
    retry_at: Instant | None

    @classmethod
    def of(cls, view: AttemptView) -> Attempt:
        return cls(
            attempt=view.attempt,
            epoch=view.epoch,
            outcome=view.outcome,
            reason=view.reason,
            worker=view.worker,
            started_at=instant(view.started_at),
            ended_at=instant(view.ended_at),
            duration_seconds=view.run_seconds,
            error=view.error,
            traceback=view.traceback,
            retry_at=instant(view.retry_at),
        )


class Job(Struct):
    """One request to run a job, with its whole life. Secret arguments are masked."""

    job_id: str
    job_name: str
    queue: str
    priority: int
    status: Status
    reason: Annotated[str | None, Meta(description="why it ended: timeout, poison, bad_arguments, …")]
    args: Annotated[dict[str, Any] | None, Meta(description="null in a list when longer than 8,000 bytes")]
    result: Annotated[Any, Meta(description="any JSON; null in a list when longer than 8,000 characters")]
    error: str | None
    enqueued_at: Instant
    run_at: Instant
    started_at: Instant | None
    completed_at: Instant | None
    duration_seconds: float | None
    attempt: Annotated[int, Meta(description="how many times it was started")]
    max_retries: int
    timeout_s: float
    progress: Annotated[float | None, Meta(description="0 to 1")]
    progress_note: str | None
    worker: Annotated[str | None, Meta(description="host:pid of the process that runs it, or ran it last")]
    user: str | None
    scheduled_job: str | None
    rerun_of: str | None
    unique_key: str | None
    tags: list[str]
    note: str | None
    cancel_requested_at: Instant | None
    resolved_at: Instant | None
    lost_count: int
    epoch: int
    rev: Annotated[int, Meta(description="raised by every change")]
    actions: Action
    duplicate: bool | UnsetType = UNSET
    attempts: list[Attempt] | UnsetType = UNSET

    @classmethod
    def of(cls, view: JobView, **more: Any) -> Job:
        """The job as the API shows it; `more` are the fields that only some answers have."""
        return cls(
            job_id=str(view.job_id),
            job_name=view.job_name,
            queue=view.queue,
            priority=view.priority,
            status=view.status,  # type: ignore[arg-type]  # the table's own check constraint
            reason=view.reason,
            args=view.args,
            result=view.result,
            error=view.error,
            enqueued_at=exact(view.enqueued_at),
            run_at=exact(view.run_at),
            started_at=instant(view.started_at),
            completed_at=instant(view.completed_at),
            duration_seconds=view.duration_seconds,
            attempt=view.attempt,
            max_retries=view.max_retries,
            timeout_s=view.timeout_s,
            progress=view.progress,
            progress_note=view.progress_note,
            worker=view.worker,
            user=view.user,
            scheduled_job=str(view.scheduled_job) if view.scheduled_job else None,
            rerun_of=str(view.rerun_of) if view.rerun_of else None,
            unique_key=view.unique_key,
            tags=list(view.tags),
            note=view.note,
            cancel_requested_at=instant(view.cancel_requested_at),
            resolved_at=instant(view.resolved_at),
            lost_count=view.lost_count,
            epoch=view.epoch,
            rev=view.rev,
            actions=Action(
                view.actions.can_retry,
                view.actions.can_cancel,
                view.actions.can_rerun,
                view.actions.can_edit,
                view.actions.can_delete,
            ),
            **more,
        )


class JobPage(Struct):
    """A page of jobs, newest first."""

    items: list[Job]
    next_cursor: Annotated[
        str | None, Meta(description="give it as `cursor` for the next page; null at the end")
    ]
    searched_back_to: Annotated[
        Instant | None,
        Meta(description="set when a search without an index stopped here: `next_cursor` goes on"),
    ] = None


class JobQuery(Struct):
    """Which jobs."""

    status: Annotated[list[Status], Meta(description=STATUS)] = []
    job_name: Annotated[Key | None, Meta(description="the name of a job")] = None
    queue: Annotated[QueueName | None, Meta(description=QUEUE)] = None
    q: Annotated[
        str | None, Meta(description='a search like `args.to:ada "timed out"`, at most 1,000 characters')
    ] = None
    sort: Annotated[Sort, Meta(description="enqueued, started, completed or duration")] = "enqueued"
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[str | None, Meta(description=CURSOR)] = None


class JobRequest(Struct):
    """A wish to run a job."""

    job_name: Annotated[Key, Meta(description="the name of a job in the job catalogue")]
    args: Annotated[dict[str, Any] | UnsetType, Meta(description=ARGS)] = UNSET
    queue: Annotated[QueueName | None, Meta(description=QUEUE)] = None
    priority: Annotated[Priority | None, Meta(description=PRIORITY)] = None
    run_at: Annotated[When | None, Meta(description=RUN_AT)] = None
    unique_key: Annotated[
        Key | None, Meta(description="a text of 1 to 200 characters; at most one live job has it")
    ] = None
    max_retries: Annotated[Retries | None, Meta(description="a whole number from 0 to 1000")] = None
    timeout_s: Annotated[
        Seconds | None, Meta(description="a number of seconds above 0 and up to 31536000")
    ] = None
    tags: Annotated[Tags, Meta(description=TAGS)] = []


class JobEdit(Struct):
    """Changes of a job: `args`, `priority` and `run_at` until it starts, the others always."""

    args: Annotated[dict[str, Any] | UnsetType, Meta(description=ARGS)] = UNSET
    priority: Annotated[Priority | UnsetType, Meta(description=PRIORITY)] = UNSET
    run_at: Annotated[When | UnsetType, Meta(description=RUN_AT)] = UNSET
    note: Annotated[Annotated[str, Meta(max_length=10_000)] | UnsetType | None, Meta(description=NOTE)] = (
        UNSET
    )
    tags: Annotated[Tags | UnsetType, Meta(description=TAGS)] = UNSET
    resolved: Annotated[bool | UnsetType, Meta(description="true or false")] = UNSET


class RetryRequest(Struct):
    """With `args`, the job runs again as a new one with these arguments."""

    args: Annotated[dict[str, Any] | UnsetType, Meta(description=ARGS)] = UNSET


class Cancelled(Struct):
    """`done`: it will not run. `requested`: its worker was asked to stop."""

    job_id: str
    status: Status
    cancel: Literal["done", "requested"]


class LogLine(Struct):
    """One line that a job logged."""

    seq: int
    epoch: int
    at: Instant
    level: str
    logger: str | None
    message: str

    @classmethod
    def of(cls, view: LogLineView) -> LogLine:
        return cls(view.seq, view.epoch, exact(view.at), view.level, view.logger, view.message)


class LogPage(Struct):
    """Log lines, oldest first."""

    items: list[LogLine]
    next_cursor: str | None


class LogQuery(Struct):
    """Which log lines."""

    limit: Annotated[
        Annotated[int, Meta(ge=1, le=1000)], Meta(description="a whole number from 1 to 1000")
    ] = 500
    cursor: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]{1,18}-[0-9]{1,9}\Z")] | None, Meta(description=CURSOR)
    ] = None


class NoQuery(Struct):
    """No query parameters."""


def instant(at: datetime | None) -> str | None:
    return exact(at) if at is not None else None


def exact(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
