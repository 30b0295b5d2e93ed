"""When a failed job runs again, as a pure rule: full jitter below an exponential ceiling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

LONGEST_WAIT_S = 366 * 86_400.0


class Retry(Exception):
    """Raise it in a job to be run again: `raise Retry(after=30)`. It uses up one of the job's retries.

    Args:
        after: seconds or a timedelta until the next run; None means the job's own backoff.
        error: what went wrong, kept as the attempt's error.
    """

    def __init__(
        self, after: float | timedelta | None = None, error: BaseException | str | None = None
    ) -> None:
        self.after_s = _seconds(after)
        self.error = error
        super().__init__(str(error) if error else "the job asked to be run again")


class Discard(Exception):
    """Raise it in a job to fail for good: no retry is made, whatever the policy says."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "the job was discarded")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a failed run."""

    kind: Literal["retry", "fail"]
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a job is tried again. `max_retries=None` leaves it to M_JOB_MAX_RETRIES."""

    max_retries: int | None = None
    base_s: float = 2.0
    cap_s: float = 600.0
    discard_on: tuple[type[BaseException], ...] = ()
    """Exceptions after which trying again cannot help."""

    def __post_init__(self) -> None:
        if self.max_retries is not None and not (_is_int(self.max_retries) and 0 <= self.max_retries <= 1000):
            raise ValueError(f"retry is {self.max_retries!r}: it must be a whole number from 0 to 1000")
        if not (0 < self.base_s <= self.cap_s <= LONGEST_WAIT_S):
            raise ValueError(
                f"the waits are base {self.base_s!r} and cap {self.cap_s!r}: 0 < base <= cap <= {LONGEST_WAIT_S:g} s"
            )

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after the run number `attempt` (from 1); `random` is from [0, 1)."""
        return random * self.ceiling(attempt)

    def ceiling(self, attempt: int) -> float:
        """The longest wait after this run: `min(cap, base * 2**(attempt - 1))`."""
        return min(self.cap_s, self.base_s * 2.0 ** min(max(attempt - 1, 0), 200))

    def decide(self, error: BaseException, attempt: int, max_retries: int, random: float) -> Decision:
        """Whether the run number `attempt` that ended in `error` is followed by another one."""
        if isinstance(error, (Discard, *self.discard_on)) or attempt > max_retries:
            return Decision("fail")
        if isinstance(error, Retry) and error.after_s is not None:
            return Decision("retry", error.after_s)
        return Decision("retry", self.delay(attempt, random))

    def as_json(self) -> dict[str, float]:
        return {"base_s": self.base_s, "cap_s": self.cap_s}


def _seconds(after: float | timedelta | None) -> float | None:
    if after is None:
        return None
    seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
    if not math.isfinite(seconds):
        raise ValueError(f"Retry(after={after!r}): it must be a number of seconds")
    return min(max(seconds, 0.0), LONGEST_WAIT_S)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
