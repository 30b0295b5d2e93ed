"""What follows an attempt, as pure rules: done, again at a time, failed for good, the webhook switched off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

HOUR_S: Final = 3600.0
PLANS: Final[dict[str, tuple[float, ...]]] = {
    "short": tuple(min(15.0 * 4**n, HOUR_S) for n in range(15)),
    "27h": (5, 300, 1800, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 10 * HOUR_S),
    "75h": (
        5, 300, 1800, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 14 * HOUR_S, 20 * HOUR_S, 24 * HOUR_S,
    ),
}  # fmt: skip
"""Seconds from one attempt to the next. `short` grows four times with each up to an hour; the long ones are Svix's and
that of Standard Webhooks 1.0."""
DEFAULT_RETRIES: Final = {"short": 3, "27h": 7, "75h": 9}
JITTER: Final = 0.2
LONGEST_HOLD_S: Final = HOUR_S
"""A receiver that asks for more time than this is asked again all the same."""
GIVE_UP_AFTER: Final = timedelta(days=5)
GIVE_UP_FAILURES: Final = 10
"""Fewer failures than this say too little about an endpoint, however long ago the first one was."""
TERMINAL: Final = ("refused", "template", "request", "secret")
"""Classes of errors that are no fault of the receiver: trying again cannot help, and they are not held against it."""
OURS: Final = ("evaluation",)
"""Classes of errors that this machine is to blame for and that pass: tried again, and not held against the receiver."""
GONE: Final = 410
ASKS_FOR_TIME: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known after an attempt. Without a status code `error_class` says what went wrong."""

    status_code: int | None = None
    error_class: str | None = None
    retry_after_s: float | None = None

    @property
    def succeeded(self) -> bool:
        """Only an answer of 2xx. Its status decides: a body that breaks off after it changes nothing."""
        return self.error_class is None and self.status_code is not None and 200 <= self.status_code < 300

    @property
    def charged(self) -> bool:
        """Whether a failure is held against the receiver."""
        return not self.succeeded and self.error_class not in (*TERMINAL, *OURS)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a delivery. `held_until` holds back all deliveries of its webhook."""

    status: str
    due_at: datetime | None = None
    held_until: datetime | None = None
    gone: bool = False
    """The receiver said that it will never come back: the webhook is switched off."""


def follow(
    outcome: Outcome, *, tries: int, max_retries: int, plan: str, now: datetime, random: float
) -> Next:
    """What follows attempt number `tries` (from 1) of a plan; `random` is from [0, 1)."""
    if outcome.succeeded:
        return Next("success")
    held = _held(outcome, now)
    if outcome.status_code == GONE:
        return Next("failed", gone=True)
    if tries > max_retries or outcome.error_class in TERMINAL:
        return Next("failed", held_until=held)
    due = now + timedelta(seconds=delay_s(plan, tries, random))
    return Next("retrying", max(due, held) if held else due, held)


def delay_s(plan: str, tries: int, random: float) -> float:
    """Seconds from attempt number `tries` to the next, a fifth more or less."""
    waits = PLANS[plan]
    return waits[min(tries, len(waits)) - 1] * (1 - JITTER + 2 * JITTER * random)


def covered_s(plan: str, max_retries: int) -> float:
    """How long an outage may last without a delivery failing, in seconds, without jitter."""
    return sum(PLANS[plan][:max_retries])


def gives_up(failing_since: datetime | None, failures: int, now: datetime) -> bool:
    """Whether a webhook had nothing but failures for so long that it is switched off."""
    return failing_since is not None and failures >= GIVE_UP_FAILURES and now - failing_since >= GIVE_UP_AFTER


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """The seconds that a `Retry-After` header asks for (RFC 9110 10.2.3), at most an hour; None when it says nothing."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_HOLD_S)
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return min(max((at - now).total_seconds(), 0.0), LONGEST_HOLD_S)


def _held(outcome: Outcome, now: datetime) -> datetime | None:
    if outcome.status_code not in ASKS_FOR_TIME or not outcome.retry_after_s:
        return None
    return now + timedelta(seconds=min(outcome.retry_after_s, LONGEST_HOLD_S))
