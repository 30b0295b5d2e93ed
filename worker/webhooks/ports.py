"""What deliveries need of the outside: conditions and templates evaluated apart, requests sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from worker.webhooks.matching import Event
from worker.webhooks.retries import Outcome
from worker.webhooks.sandbox import Verdict


class Conditions(Protocol):
    """Evaluates conditions where they can do no harm."""

    async def condition(self, expression: str, event: Event) -> Verdict:
        """The verdict on one event. It raises only when nothing can be evaluated at all just now."""
        ...


class Checks(Protocol):
    """What only a look outside or a compiler can tell of a field: what is wrong and what is allowed; None when good."""

    async def url(self, url: str) -> str | None: ...

    async def condition(self, condition: str) -> str | None: ...

    async def payload_template(self, template: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery that a courier holds, with what of its webhook it needs; secrets are encrypted still."""

    id: UUID
    epoch: int
    rev: int
    due_at: datetime
    webhook_id: UUID
    webhook_name: str
    event_id: str
    event: Mapping[str, Any]
    trigger: str
    tries: int
    number: int
    """Which attempt it is, from 1."""
    asked_by: str | None
    body: bytes | None
    """What an earlier attempt of this plan sent: it is sent again as it was."""
    url: str
    method: str
    headers: Mapping[str, str]
    secret_headers: Mapping[str, str]
    payload_template: str | None
    secret: str
    previous_secret: str | None
    previous_until: datetime | None
    """Until then the previous secret signs too."""
    timeout_s: float
    retry: str
    max_retries: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known after an attempt. Times ending in `_ms` are milliseconds of a phase."""

    outcome: Outcome
    started_at: datetime
    ended_at: datetime
    body: bytes | None = None
    request_headers: Mapping[str, str] = field(default_factory=dict)
    peer_ip: str | None = None
    response_headers: Mapping[str, str] | None = None
    response_body: str | None = None
    response_truncated: bool = False
    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float | None = None
    error: str | None = None


class Sender(Protocol):
    """Makes one request. It raises nothing: whatever goes wrong is part of what it answers."""

    async def send(self, delivery: Delivery) -> Sent: ...
