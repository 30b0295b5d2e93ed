"""What the API reads and answers of webhooks. A field's description is also the message when its value is not allowed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from webapp.api.schema import CURSOR, LIMIT, Instant, Key, Limit, Reason, exact, instant
from webapp.queries.webhooks import WebhookView

Text = Annotated[str, Meta(max_length=20_000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Pattern = Annotated[str, Meta(min_length=1, max_length=300)]
Method = Literal["POST", "PUT", "PATCH"]
Plan = Literal["short", "27h", "75h"]
Retries = Annotated[int, Meta(ge=0, le=15)]
Timeout = Annotated[float, Meta(ge=1, le=30)]
Rate = Annotated[float, Meta(ge=0.01, le=1000)]
AtOnce = Annotated[int, Meta(ge=1, le=50)]
Hours = Annotated[float, Meta(ge=0, le=168)]
Version = Annotated[int, Meta(ge=1)]

NAME = "a text of 1 to 200 characters that no other webhook has"
PATTERN = "a pattern of events such as job.failed, doc.* or job.>"
DOCTYPE = "the name of a doctype such as Invoice; null: all"
CONDITION = "a JMESPath expression over the event, at most 2,000 characters; null: always"
URL = "an https:// URL of a public host, or of what M_WEBHOOK_ALLOW names"
METHOD = "POST, PUT or PATCH"
HEADERS = 'an object of texts such as {"X-Team": "billing"}'
HIDDEN_HEADERS = "a list of those names in `headers` whose values are kept encrypted and never shown"
TEMPLATE = "a Jinja template that makes JSON, at most 20,000 characters; null: the body of Standard Webhooks"
SIGNING = "whsec_ and the base64 of 24 to 64 random bytes; left out: a new one is made"
TIMEOUT = "a number of seconds from 1 to 30"
PLAN = "short, 27h or 75h"
RETRIES = "a whole number from 0 to the retries of the plan; null: all of a long plan, 3 of the short one"
RATE = "a number of requests a second from 0.01 to 1000; null: any"
AT_ONCE = "a whole number from 1 to 50"
YES_OR_NO = "true or false"
REASON = "a text of at most 500 characters"
EVENT_ID = "the id of an event that is still kept"


class Webhook(Struct):
    """A webhook as it stands. Secrets are never in it; its URL is whole for admins only."""

    webhook_id: str
    name: str
    event: str
    doctype_filter: str | None
    condition: str | None
    url: str
    method: Method
    headers: dict[str, Any]
    secret_headers: Annotated[list[str], Meta(description="names of headers whose values are kept encrypted")]
    payload_template: str | None
    timeout_s: float
    retry: Plan
    max_retries: int
    rate_per_s: float | None
    concurrency: int
    enabled: bool
    disabled_at: Instant | None
    disabled_by: Annotated[str | None, Meta(description="who switched it off; `engine`: it did so by itself")]
    disabled_reason: str | None
    previous_secret_until: Annotated[Instant | None, Meta(description="until then two secrets sign")]
    rotated_at: Instant | None
    failing_since: Annotated[Instant | None, Meta(description="since when there is nothing but failures")]
    failures: int
    success_rate: Annotated[float | None, Meta(description="0 to 1, of its newest 50 deliveries that ended")]
    p95_ms: float | None
    next_attempt_at: Annotated[Instant | None, Meta(description="when a delivery that failed is tried again")]
    created_at: Instant
    created_by: str | None
    updated_at: Instant
    version: Annotated[int, Meta(description="raised by every edit; give it back to edit what you saw")]

    @classmethod
    def of(cls, view: WebhookView, *, whole: bool) -> Webhook:
        return cls(**fields_of(view, whole=whole))


class WebhookWithSecret(Webhook):
    """A webhook that was made or got a new secret, which is shown this once."""

    secret: str


class WebhookPage(Struct):
    """A page of webhooks by name."""

    items: list[Webhook]
    next_cursor: str | None


class WebhookQuery(Struct):
    """Which webhooks."""

    q: Annotated[
        Annotated[str, Meta(max_length=200)] | None, Meta(description="words of the name or pattern")
    ] = None
    limit: Annotated[Limit, Meta(description=LIMIT)] = 50
    cursor: Annotated[Key | None, Meta(description=CURSOR)] = None


class NewWebhook(Struct):
    """A wish for a webhook."""

    name: Annotated[Name, Meta(description=NAME)]
    event: Annotated[Pattern, Meta(description=PATTERN)]
    url: Annotated[Text, Meta(description=URL)]
    doctype_filter: Annotated[Text | None, Meta(description=DOCTYPE)] = None
    condition: Annotated[Text | None, Meta(description=CONDITION)] = None
    method: Annotated[Method, Meta(description=METHOD)] = "POST"
    headers: Annotated[dict[str, str], Meta(description=HEADERS)] = {}
    secret_headers: Annotated[list[str], Meta(description=HIDDEN_HEADERS)] = []
    payload_template: Annotated[Text | None, Meta(description=TEMPLATE)] = None
    secret: Annotated[Text | UnsetType, Meta(description=SIGNING)] = UNSET
    timeout_s: Annotated[Timeout, Meta(description=TIMEOUT)] = 30.0
    retry: Annotated[Plan, Meta(description=PLAN)] = "short"
    max_retries: Annotated[Retries | None, Meta(description=RETRIES)] = None
    rate_per_s: Annotated[Rate | None, Meta(description=RATE)] = None
    concurrency: Annotated[AtOnce, Meta(description=AT_ONCE)] = 10
    enabled: Annotated[bool, Meta(description=YES_OR_NO)] = True


class WebhookEdit(Struct):
    """What is to be another way. With `version`, only if nobody has edited it since."""

    name: Annotated[Name | UnsetType, Meta(description=NAME)] = UNSET
    event: Annotated[Pattern | UnsetType, Meta(description=PATTERN)] = UNSET
    url: Annotated[Text | UnsetType, Meta(description=URL)] = UNSET
    doctype_filter: Annotated[Text | UnsetType | None, Meta(description=DOCTYPE)] = UNSET
    condition: Annotated[Text | UnsetType | None, Meta(description=CONDITION)] = UNSET
    method: Annotated[Method | UnsetType, Meta(description=METHOD)] = UNSET
    headers: Annotated[
        dict[str, str] | UnsetType, Meta(description=f"{HEADERS}; a masked value stays as it is stored")
    ] = UNSET
    secret_headers: Annotated[list[str] | UnsetType, Meta(description=HIDDEN_HEADERS)] = UNSET
    payload_template: Annotated[Text | UnsetType | None, Meta(description=TEMPLATE)] = UNSET
    timeout_s: Annotated[Timeout | UnsetType, Meta(description=TIMEOUT)] = UNSET
    retry: Annotated[Plan | UnsetType, Meta(description=PLAN)] = UNSET
    max_retries: Annotated[Retries | UnsetType | None, Meta(description=RETRIES)] = UNSET
    rate_per_s: Annotated[Rate | UnsetType | None, Meta(description=RATE)] = UNSET
    concurrency: Annotated[AtOnce | UnsetType, Meta(description=AT_ONCE)] = UNSET
    enabled: Annotated[bool | UnsetType, Meta(description=YES_OR_NO)] = UNSET
    version: Annotated[Version | UnsetType, Meta(description="the version that you saw")] = UNSET


class WebhookDisable(Struct):
    """Why, for the people who will wonder."""

    reason: Annotated[Reason, Meta(description=REASON)] = ""


class WebhookRotate(Struct):
    """How long the secret before signs too."""

    overlap_hours: Annotated[Hours, Meta(description="a number of hours from 0 to 168")] = 24.0
    secret: Annotated[Text | UnsetType, Meta(description=SIGNING)] = UNSET


class WebhookTest(Struct):
    """What to send: an example, or a past event under an id of its own."""

    event_id: Annotated[Key | UnsetType, Meta(description=EVENT_ID)] = UNSET


class WebhookTry(Struct):
    """A webhook as it might be, and the event to try it on: a past one, or one that is given whole."""

    event_id: Annotated[Key | UnsetType, Meta(description=EVENT_ID)] = UNSET
    sample: Annotated[
        dict[str, Any] | UnsetType, Meta(description="an event: an object with event_type and data")
    ] = UNSET
    webhook_id: Annotated[
        Key | UnsetType, Meta(description="the id of a webhook: its fields hold where none is given")
    ] = UNSET
    name: Annotated[Name | UnsetType, Meta(description=NAME)] = UNSET
    event: Annotated[Pattern | UnsetType, Meta(description=PATTERN)] = UNSET
    url: Annotated[Text | UnsetType, Meta(description=URL)] = UNSET
    doctype_filter: Annotated[Text | UnsetType | None, Meta(description=DOCTYPE)] = UNSET
    condition: Annotated[Text | UnsetType | None, Meta(description=CONDITION)] = UNSET
    payload_template: Annotated[Text | UnsetType | None, Meta(description=TEMPLATE)] = UNSET


class Why(Struct):
    """Which part keeps an event back, and the value that decided it."""

    reason: Annotated[
        str, Meta(description="pattern, doctype, later, own, disabled, condition, error or waiting")
    ]
    detail: str


class WebhookTrial(Struct):
    """What would be done, part by part; nothing was sent."""

    delivers: bool
    why: Why | None
    condition_value: str | None
    condition_error: str | None
    body: Annotated[str | None, Meta(description="the exact bytes that would be sent")]
    body_error: str | None
    addresses: Annotated[list[str], Meta(description="where the request would go")]
    refused: Annotated[str | None, Meta(description="why the URL may not be used")]


TIMES = (
    "disabled_at", "previous_secret_until", "rotated_at", "failing_since", "next_attempt_at",
)  # fmt: skip
MADE = ("webhook_id", "url", "secret_headers", "p95_ms", "success_rate", "created_at", "updated_at", *TIMES)
SAME = tuple(name for name in Webhook.__struct_fields__ if name not in MADE)


def fields_of(view: WebhookView, *, whole: bool) -> dict[str, Any]:
    """The fields of the answer; `whole` for admins."""
    took = view.p95_seconds
    return {
        **{name: getattr(view, name) for name in SAME},
        **{name: instant(getattr(view, name)) for name in TIMES},
        "webhook_id": str(view.id),
        "url": view.url if whole else view.place,
        "secret_headers": list(view.secret_headers),
        "success_rate": view.success_rate,
        "p95_ms": None if took is None else round(took * 1000, 2),
        "created_at": exact(view.created_at),
        "updated_at": exact(view.updated_at),
    }
