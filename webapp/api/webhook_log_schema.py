"""What the API reads and answers of deliveries. A field's description is also the message when its value is not allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from webapp.api.schema import CURSOR, LIMIT, Instant, Key, Limit, When, exact, instant
from webapp.api.webhook_schema import Why
from webapp.queries.deliveries import AttemptView, DeliveryView, ReplayView, WholeDelivery

DeliveryStatus = Literal["pending", "sending", "retrying", "success", "failed"]
Code = Annotated[int, Meta(ge=100, le=999)]
Pattern = Annotated[str, Meta(min_length=1, max_length=300)]
Rate = Annotated[float, Meta(ge=0.1, le=100)]
Ids = Annotated[list[str], Meta(max_length=1000)]

STATUS = "pending, sending, retrying, success or failed"
WEBHOOK_ID = "the id of a webhook"
EVENT = "a type of events or a pattern such as job.>"
CODE = "a status code from 100 to 999"
ERROR_CLASS = "refused, dns, connect, tls, timeout, reset, protocol or another class of errors"
WHEN = "an instant with its offset, like 2026-11-22T09:00:00Z"
RATE = "a number of deliveries a second from 0.1 to 100"


class WebhookLog(Struct):
    """One delivery of one event to one webhook, as its last attempt left it."""

    log_id: str
    webhook_id: str
    webhook: Annotated[str, Meta(description="the webhook's name when the event came")]
    event_id: str
    event: Annotated[str, Meta(description="the event's type")]
    status: DeliveryStatus
    response_code: int | None
    response_body: Annotated[str | None, Meta(description="up to 64 KB; null in a list")]
    error: str | None
    error_class: str | None
    timestamp: Annotated[Instant, Meta(description="when the event was matched")]
    trigger: Annotated[str, Meta(description="auto, or test")]
    attempts: int
    duration_ms: float | None
    due_at: Annotated[Instant, Meta(description="when the next attempt is due, or was")]
    ended_at: Instant | None

    @classmethod
    def of(cls, view: DeliveryView, response_body: str | None = None) -> WebhookLog:
        return cls(**log_fields(view, response_body))


class Attempt(Struct):
    """One request of a delivery. Times ending in `_ms` are milliseconds of a phase."""

    number: int
    trigger: Annotated[str, Meta(description="auto, manual, replay or test")]
    user: str | None
    outcome: Annotated[str, Meta(description="success, failed or lost")]
    started_at: Instant
    ended_at: Instant
    method: str
    url: str
    request_headers: Annotated[dict[str, Any], Meta(description="as sent, secrets and signatures masked")]
    peer_ip: str | None
    response_code: int | None
    response_headers: dict[str, Any] | None
    response_body: Annotated[str | None, Meta(description="up to 64 KB")]
    response_truncated: bool
    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: float | None
    total_ms: float | None
    error_class: str | None
    error: str | None
    next_attempt_at: Instant | None

    @classmethod
    def of(cls, view: AttemptView, *, whole: bool) -> Attempt:
        made = ("user", "started_at", "ended_at", "response_code", "url", "next_attempt_at")
        same = [name for name in cls.__struct_fields__ if name not in made]
        return cls(
            **{name: getattr(view, name) for name in same},
            user=view.user_id,
            started_at=exact(view.started_at),
            ended_at=exact(view.ended_at),
            response_code=view.status_code,
            url=view.url if whole else view.place,
            next_attempt_at=instant(view.next_attempt_at),
        )


class WholeWebhookLog(WebhookLog):
    """A delivery with the event, what is sent, and every attempt, the newest first."""

    payload: Annotated[str | None, Meta(description="the exact body; null until it was rendered")]
    payload_hash: Annotated[str | None, Meta(description="SHA-256 of the body, hex")]
    data: Annotated[dict[str, Any], Meta(description="the event")]
    tried: list[Attempt]

    @classmethod
    def whole(cls, found: WholeDelivery, *, admin: bool) -> WholeWebhookLog:
        return cls(
            **log_fields(found.view, found.response_body),
            payload=found.body,
            payload_hash=found.body_hash,
            data=found.event,
            tried=[Attempt.of(one, whole=admin) for one in found.attempts],
        )


class WebhookLogPage(Struct):
    """A page of deliveries, newest first."""

    items: list[WebhookLog]
    next_cursor: str | None


class WebhookLogQuery(Struct):
    """Which deliveries: all that is given must hold."""

    webhook_id: Annotated[Key | None, Meta(description=WEBHOOK_ID)] = None
    status: Annotated[DeliveryStatus | None, Meta(description=STATUS)] = None
    event: Annotated[Pattern | None, Meta(description=EVENT)] = None
    response_code: Annotated[Code | None, Meta(description=CODE)] = None
    error_class: Annotated[Key | None, Meta(description=ERROR_CLASS)] = None
    after: Annotated[When | None, Meta(description=WHEN)] = None
    before: Annotated[When | None, Meta(description=WHEN)] = None
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[Key | None, Meta(description=CURSOR)] = None


class OneWebhooksQuery(Struct):
    """Which deliveries of this webhook."""

    status: Annotated[DeliveryStatus | None, Meta(description=STATUS)] = None
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[Key | None, Meta(description=CURSOR)] = None


class ReplayWish(Struct):
    """Which deliveries to send again, and how fast. At least one of the fields of the filter."""

    webhook_id: Annotated[Key | UnsetType, Meta(description=WEBHOOK_ID)] = UNSET
    status: Annotated[DeliveryStatus | UnsetType, Meta(description=STATUS)] = UNSET
    event: Annotated[Pattern | UnsetType, Meta(description=EVENT)] = UNSET
    response_code: Annotated[Code | UnsetType, Meta(description=CODE)] = UNSET
    error_class: Annotated[Key | UnsetType, Meta(description=ERROR_CLASS)] = UNSET
    after: Annotated[When | UnsetType, Meta(description=WHEN)] = UNSET
    before: Annotated[When | UnsetType, Meta(description=WHEN)] = UNSET
    ids: Annotated[Ids | UnsetType, Meta(description="a list of at most 1000 ids of deliveries")] = UNSET
    rate_per_s: Annotated[Rate, Meta(description=RATE)] = 10.0
    cutoff: Annotated[
        When | UnsetType, Meta(description=f"{WHEN}: what came later is left out; now when it is not given")
    ] = UNSET
    dry_run: Annotated[bool, Meta(description="true or false")] = False


class Replay(Struct):
    """A planned batch and how far it has come."""

    replay_id: str
    filter: dict[str, Any]
    cutoff: Instant
    rate_per_s: float
    status: Annotated[str, Meta(description="pending, running, done or stopped")]
    total: Annotated[int, Meta(description="counted when it begins, up to 10,001")]
    done: int
    refused: int
    refusals: Annotated[
        list[dict[str, Any]], Meta(description="the first hundred that could not be sent, and why")
    ]
    user: str | None
    created_at: Instant
    ended_at: Instant | None
    stop_requested: bool

    @classmethod
    def of(cls, view: ReplayView) -> Replay:
        made = ("replay_id", "cutoff", "user", "created_at", "ended_at")
        return cls(
            **{name: getattr(view, name) for name in cls.__struct_fields__ if name not in made},
            replay_id=str(view.id),
            cutoff=exact(view.cutoff),
            user=view.user_id,
            created_at=exact(view.created_at),
            ended_at=instant(view.ended_at),
        )


class ReplayPlan(Struct):
    """What a batch sends again, or with `dry_run` would; `replay` is null then."""

    matching: Annotated[int, Meta(description="counted up to 10,001")]
    later: Annotated[int, Meta(description="matching ones that came after the cutoff, and are left out")]
    takes_s: float
    cutoff: Instant
    replay: Replay | None


class Told(Struct):
    """What a webhook made of an event."""

    delivered: Annotated[bool, Meta(description="whether there is a delivery, whatever became of it")]
    why: Why | None
    log: WebhookLog | None


def log_fields(view: DeliveryView, response_body: str | None) -> dict[str, Any]:
    made = ("log_id", "webhook_id", "webhook", "event", "response_body", "timestamp", "due_at", "ended_at")
    same = [name for name in WebhookLog.__struct_fields__ if name not in made]
    return {
        **{name: getattr(view, name) for name in same},
        "log_id": str(view.id),
        "webhook_id": str(view.webhook_id),
        "webhook": view.webhook_name,
        "event": view.event_type,
        "response_body": response_body,
        "timestamp": exact(view.created_at),
        "due_at": exact(view.due_at),
        "ended_at": instant(view.ended_at),
    }
