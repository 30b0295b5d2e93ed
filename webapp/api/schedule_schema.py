"""What the API reads and answers of schedules. A field's description is also the message when its value is not allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

from webapp.api.schema import (
    ARGS,
    CURSOR,
    LIMIT,
    PRIORITY,
    QUEUE,
    Instant,
    Key,
    Limit,
    Priority,
    QueueName,
    Reason,
    When,
    exact,
    instant,
)
from webapp.queries.schedules import FireView, ScheduleView

Missed = Literal["latest", "skip", "all"]
Overlap = Literal["skip", "allow", "cancel_running"]
Zone = Annotated[str, Meta(max_length=64)]
Expression = Annotated[str, Meta(max_length=400)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Jitter = Annotated[float, Meta(ge=0, le=86_400)]
CatchUp = Annotated[int, Meta(ge=0, le=31_622_400)]
Version = Annotated[int, Meta(ge=1)]
Ids = Annotated[list[UUID], Meta(min_length=1, max_length=1000)]

CRON = "a cron expression like `0 9 * * MON-FRI`, `@daily`, or `every 30s`"
ZONE = "an IANA time zone like Europe/Warsaw"
NAME = "a text of 1 to 200 characters that no other schedule has"
WHEN = "an instant with its offset, like 2026-11-22T09:00:00Z"
FUNCTION = "the name of a job in the job catalogue"
YES_OR_NO = "true or false"
MISSED = "latest, skip or all"
OVERLAP = "skip, allow or cancel_running"
JITTER = "a number of seconds from 0 to 86400"
CATCH_UP = "a whole number of seconds from 0 to 31622400"
REASON = "a text of at most 500 characters"


class Schedule(Struct):
    """A schedule as it stands. Secret arguments are masked."""

    schedule_id: str
    name: str
    function: str
    cron_expression: str
    time_zone: str
    sentence: Annotated[str, Meta(description="the schedule in plain words")]
    args: dict[str, Any]
    queue: Annotated[str | None, Meta(description="null: the job's own")]
    priority: int | None
    enabled: bool
    paused_at: Instant | None
    paused_until: Annotated[Instant | None, Meta(description="null: until it is resumed")]
    paused_by: str | None
    pause_reason: str | None
    missed: Missed
    catch_up_s: int
    overlap: Overlap
    jitter_s: float
    start_at: Instant | None
    end_at: Instant | None
    last_run: Instant | None
    last_job_id: str | None
    last_result: Annotated[str | None, Meta(description="the status of the last job")]
    next_run: Annotated[Instant | None, Meta(description="null while it is not due")]
    module: Annotated[
        str | None, Meta(description="the module whose code owns it: the next deploy overwrites edits")
    ]
    edited_at: Instant | None
    retired_at: Annotated[Instant | None, Meta(description="when the code stopped having it")]
    created_at: Instant
    created_by: str | None
    updated_at: Instant
    version: Annotated[int, Meta(description="raised by every edit; give it back to edit what you saw")]

    @classmethod
    def of(cls, view: ScheduleView) -> Schedule:
        times = ("paused_at", "paused_until", "start_at", "end_at", "edited_at", "retired_at")
        same = (
            "name", "function", "cron_expression", "time_zone", "sentence", "args", "queue", "priority", "enabled",
            "paused_by", "pause_reason", "missed", "catch_up_s", "overlap", "jitter_s", "module", "created_by", "version",
        )  # fmt: skip
        known: dict[str, Any] = {name: getattr(view, name) for name in same}
        known |= {name: instant(getattr(view, name)) for name in times}
        return cls(
            **known,
            schedule_id=str(view.id),
            last_run=instant(view.last_fire_at),
            last_job_id=str(view.last_job_id) if view.last_job_id else None,
            last_result=view.last_status,
            next_run=instant(view.next_fire_at),
            created_at=exact(view.created_at),
            updated_at=exact(view.updated_at),
        )


class SchedulePage(Struct):
    """A page of schedules, by name."""

    items: list[Schedule]
    next_cursor: str | None


class ScheduleQuery(Struct):
    """Which schedules."""

    q: Annotated[
        Annotated[str, Meta(max_length=200)] | None,
        Meta(description="words of the name, function, zone or expression"),
    ] = None
    function: Annotated[Key | None, Meta(description=FUNCTION)] = None
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[Key | None, Meta(description=CURSOR)] = None


class NewSchedule(Struct):
    """A wish for a schedule."""

    name: Annotated[Name, Meta(description=NAME)]
    function: Annotated[Key, Meta(description=FUNCTION)]
    cron_expression: Annotated[Expression, Meta(description=CRON)]
    time_zone: Annotated[Zone, Meta(description=ZONE)] = "UTC"
    args: Annotated[dict[str, Any] | UnsetType, Meta(description=ARGS)] = UNSET
    queue: Annotated[QueueName | None, Meta(description=QUEUE)] = None
    priority: Annotated[Priority | None, Meta(description=PRIORITY)] = None
    enabled: Annotated[bool, Meta(description=YES_OR_NO)] = True
    missed: Annotated[Missed, Meta(description=MISSED)] = "latest"
    catch_up_s: Annotated[CatchUp, Meta(description=CATCH_UP)] = 86_400
    overlap: Annotated[Overlap, Meta(description=OVERLAP)] = "skip"
    jitter_s: Annotated[Jitter, Meta(description=JITTER)] = 0.0
    start_at: Annotated[When | None, Meta(description=WHEN)] = None
    end_at: Annotated[When | None, Meta(description=WHEN)] = None


class ScheduleEdit(Struct):
    """What is to be another way. With `version`, only if nobody has edited it since."""

    name: Annotated[Name | UnsetType, Meta(description=NAME)] = UNSET
    function: Annotated[Key | UnsetType, Meta(description=FUNCTION)] = UNSET
    cron_expression: Annotated[Expression | UnsetType, Meta(description=CRON)] = UNSET
    time_zone: Annotated[Zone | UnsetType, Meta(description=ZONE)] = UNSET
    args: Annotated[dict[str, Any] | UnsetType, Meta(description=ARGS)] = UNSET
    queue: Annotated[QueueName | UnsetType | None, Meta(description=QUEUE)] = UNSET
    priority: Annotated[Priority | UnsetType | None, Meta(description=PRIORITY)] = UNSET
    enabled: Annotated[bool | UnsetType, Meta(description=YES_OR_NO)] = UNSET
    missed: Annotated[Missed | UnsetType, Meta(description=MISSED)] = UNSET
    catch_up_s: Annotated[CatchUp | UnsetType, Meta(description=CATCH_UP)] = UNSET
    overlap: Annotated[Overlap | UnsetType, Meta(description=OVERLAP)] = UNSET
    jitter_s: Annotated[Jitter | UnsetType, Meta(description=JITTER)] = UNSET
    start_at: Annotated[When | UnsetType | None, Meta(description=WHEN)] = UNSET
    end_at: Annotated[When | UnsetType | None, Meta(description=WHEN)] = UNSET
    version: Annotated[Version | UnsetType, Meta(description="the version that you saw")] = UNSET


class SchedulePause(Struct):
    """Why, for the people who will wonder, and until when."""

    reason: Annotated[Reason, Meta(description=REASON)] = ""
    until: Annotated[When | None, Meta(description=f"{WHEN}; null: until it is resumed")] = None


class ScheduleBulk(Struct):
    """Pauses or resumes many at once."""

    action: Annotated[Literal["pause", "resume"], Meta(description="pause or resume")]
    schedule_ids: Annotated[Ids, Meta(description="a list of 1 to 1000 ids of schedules")]
    reason: Annotated[Reason, Meta(description=REASON)] = ""
    until: Annotated[When | None, Meta(description=f"{WHEN}; null: until it is resumed")] = None


class BulkDone(Struct):
    """The schedules that were there and were changed."""

    schedule_ids: list[str]


class PreviewQuery(Struct):
    """Which expression, and how much of it."""

    cron_expression: Annotated[Expression, Meta(description=CRON)]
    time_zone: Annotated[Zone, Meta(description=ZONE)] = "UTC"
    count: Annotated[Annotated[int, Meta(ge=1, le=100)], Meta(description="a whole number from 1 to 100")] = (
        10
    )
    after: Annotated[When | None, Meta(description=f"{WHEN}; now when it is not given")] = None
    schedule_id: Annotated[UUID | None, Meta(description="the id of a schedule that is to be changed so")] = (
        None
    )


class PreviewInstant(Struct):
    """One due instant: in UTC, as the zone's clocks show it, and what daylight saving does to it."""

    at: Instant
    local: str
    note: str


class SchedulePreview(Struct):
    """An expression in words and in instants."""

    sentence: str
    next: list[PreviewInstant]
    adds: Annotated[
        int | UnsetType, Meta(description="with `schedule_id`: runs that it adds within a week")
    ] = UNSET
    removes: Annotated[int | UnsetType, Meta(description="with `schedule_id`: runs that it removes")] = UNSET


class Fire(Struct):
    """One due instant and what became of it."""

    fire_at: Instant
    outcome: Annotated[str, Meta(description="enqueued, skipped_overlap, missed or refused")]
    kind: Annotated[str, Meta(description="clock, manual or backfill")]
    job_id: str | None
    status: Annotated[str | None, Meta(description="how its job stands or ended")]
    detail: str | None
    user: str | None

    @classmethod
    def of(cls, view: FireView) -> Fire:
        job_id = str(view.job_id) if view.job_id else None
        return cls(exact(view.fire_at), view.outcome, view.kind, job_id, view.status, view.detail, view.user)


class FirePage(Struct):
    """A page of fires, newest first."""

    items: list[Fire]
    next_cursor: Instant | None


class FireQuery(Struct):
    """Which fires."""

    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[When | None, Meta(description=CURSOR)] = None


class BackfillRequest(Struct):
    """The range whose instants are to run after all, both ends included."""

    since: Annotated[When, Meta(description=WHEN)]
    until: Annotated[When, Meta(description=WHEN)]
    dry_run: Annotated[bool, Meta(description=YES_OR_NO)] = False


class BackfillAnswer(Struct):
    """What was run, or with `dry_run` would be."""

    runs: list[Instant]
    left_out: Annotated[int, Meta(description="instants that had run already")]
    job_ids: list[str]
    refused: Annotated[dict[str, str], Meta(description="instants whose job could not be accepted, and why")]


class Started(Struct):
    """The job that was started."""

    job_id: str
