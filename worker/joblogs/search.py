"""The search language: `status:failed queue:mail args.to:ada@… "timed out"` into tokens, mistakes named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

STATUSES = ("scheduled", "queued", "running", "retrying", "success", "failed", "cancelled", "late")
"""What `status:` takes. `late` is not a status of a row: it is queued, and has waited too long."""

WORDS = (
    "status", "queue", "job", "args", "error", "tag", "after", "before", "ended",
    "worker", "schedule", "id", "user", "group", "is",
)  # fmt: skip
MEANINGS = ("resolved", "unresolved")
MAX_LENGTH = 1000

_TOKEN = re.compile(r'(?:(?P<word>[A-Za-z_][\w.-]*):(?!//))?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>\S+))')
_AGO = re.compile(r"^(\d{1,5})([smhdw])$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Token:
    """`word:value`, or free text when `word` is empty."""

    word: str
    value: str

    def __str__(self) -> str:
        value = self.value
        if not value or re.search(r'[\s"]', value) or (not self.word and _WORD_LIKE.match(value)):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{self.word}:{value}" if self.word else value


_WORD_LIKE = re.compile(r"^[A-Za-z_][\w.-]*:(?!//)")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which job logs: every field narrows, an empty one does not. Several values of one field mean any of them,
    except `args`, `errors` and `text`, which must all hold."""

    statuses: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    args: tuple[tuple[str, str], ...] = ()
    errors: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    schedules: tuple[UUID, ...] = ()
    ids: tuple[str, ...] = ()
    """Whole ids or their beginnings, hex digits only."""
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    ended_after: datetime | None = None
    tokens: tuple[Token, ...] = field(default=(), compare=False)
    """What was understood, in the order it was typed: the chips."""
    problems: tuple[str, ...] = field(default=(), compare=False)
    """What was not, each naming the token and what is allowed. A filter with problems finds nothing."""
    typed: str = field(default="", compare=False)

    @property
    def empty(self) -> bool:
        return self == JobFilter()

    @property
    def scans(self) -> bool:
        """Whether a part of it has no index, so that rows must be looked at one by one."""
        return bool(
            self.args or self.errors or self.text or self.tags or self.workers or self.users
        )  # fmt: skip

    def with_status(self, *statuses: str) -> JobFilter:
        return replace(self, statuses=statuses)

    def query(self) -> str:
        """The filter in its own language; parsing it gives this filter again."""
        return " ".join(str(token) for token in self.tokens)


def parse(typed: str, now: datetime) -> JobFilter:
    """Reads what a person typed. Never raises: what is wrong is in `problems`, what was typed is kept."""
    if len(typed) > MAX_LENGTH:
        problem = f"the search is {len(typed)} characters long; at most {MAX_LENGTH} are allowed"
        return JobFilter(typed=typed[:MAX_LENGTH], problems=(problem,))
    return from_tokens(_tokens(typed), now, typed)


def from_tokens(tokens: Iterable[Token], now: datetime, typed: str = "") -> JobFilter:
    """The filter that these tokens spell."""
    found = JobFilter(typed=typed)
    for token in tokens:
        try:
            found = _take(found, token, now)
        except ValueError as error:
            found = replace(found, problems=(*found.problems, str(error)))
        else:
            found = replace(found, tokens=(*found.tokens, token))
    if found.after and found.before and found.after >= found.before:
        problem = (
            f"after:{found.after:%Y-%m-%dT%H:%M} is not earlier than before:{found.before:%Y-%m-%dT%H:%M}"
        )
        found = replace(found, problems=(*found.problems, problem))
    return found


def moment(text: str, now: datetime) -> datetime:
    """`2026-11-01`, `2026-11-01T10:30` (UTC unless it says otherwise), or a span ago such as `3h` or `7d`."""
    if ago := _AGO.match(text):
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time: write 2026-11-01, 2026-11-01T10:30, or a span ago like 90m, 3h or 7d"
        ) from None


# One token after the other


def _tokens(typed: str) -> Iterable[Token]:
    for match in _TOKEN.finditer(typed):
        quoted = match["quoted"]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["plain"]
        yield Token(match["word"] or "", value)
    if dangling := re.search(r"(?:^|\s)([A-Za-z_][\w.-]*):(?=\s|$)", typed):
        yield Token(dangling[1], "")


def _take(found: JobFilter, token: Token, now: datetime) -> JobFilter:
    word, value = token.word.lower(), token.value
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value):
        raise ValueError(f"{word or 'the text'} holds a control character, which no job can hold")
    if not word:
        return replace(found, text=(*found.text, value)) if value else found
    if not value:
        raise ValueError(f"{word}: needs a value")
    if word.startswith("args."):
        path = token.word[5:]
        if not path.strip("."):
            raise ValueError("args.: needs the name of an argument, as in args.to:ada@example.com")
        return replace(found, args=(*found.args, (path, value)))
    taker = _TAKERS.get(word)
    if taker is None:
        raise ValueError(
            f"{token.word}: is not a word of this search. Allowed are "
            f"{', '.join(w + '.name' if w == 'args' else w for w in WORDS)}; quotes search for it as text"
        )
    return taker(found, value, now)


def _any(field_name: str) -> Callable[[JobFilter, str, datetime], JobFilter]:
    def take(found: JobFilter, value: str, _now: datetime) -> JobFilter:
        values = tuple(part for part in value.split(",") if part)
        more: dict[str, Any] = {field_name: (*getattr(found, field_name), *values)}
        return replace(found, **more)

    return take


def _of(
    field_name: str, word: str, allowed: tuple[str, ...]
) -> Callable[[JobFilter, str, datetime], JobFilter]:
    def take(found: JobFilter, value: str, now: datetime) -> JobFilter:
        for part in value.lower().split(","):
            if part not in allowed:
                raise ValueError(f"{word}:{part} is not known. Allowed are {', '.join(allowed)}")
        return _any(field_name)(found, value.lower(), now)

    return take


def _take_error(found: JobFilter, value: str, _now: datetime) -> JobFilter:
    return replace(found, errors=(*found.errors, value))


def _take_id(found: JobFilter, value: str, now: datetime) -> JobFilter:
    digits = value.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{4,32}(,[0-9a-f]{4,32})*", digits):
        raise ValueError(f"id:{value} is not a job id or the first 4 or more characters of one")
    return _any("ids")(found, digits, now)


def _take_schedule(found: JobFilter, value: str, _now: datetime) -> JobFilter:
    try:
        return replace(found, schedules=(*found.schedules, UUID(value)))
    except ValueError:
        raise ValueError(f"schedule:{value} is not the id of a schedule") from None


def _take_after(found: JobFilter, value: str, now: datetime) -> JobFilter:
    return replace(found, after=max(filter(None, (found.after, moment(value, now)))))


def _take_before(found: JobFilter, value: str, now: datetime) -> JobFilter:
    return replace(found, before=min(filter(None, (found.before, moment(value, now)))))


def _take_ended(found: JobFilter, value: str, now: datetime) -> JobFilter:
    return replace(found, ended_after=max(filter(None, (found.ended_after, moment(value, now)))))


_TAKERS: dict[str, Callable[[JobFilter, str, datetime], JobFilter]] = {
    "status": _of("statuses", "status", STATUSES),
    "is": _of("meanings", "is", MEANINGS),
    "queue": _any("queues"),
    "job": _any("jobs"),
    "tag": _any("tags"),
    "worker": _any("workers"),
    "user": _any("users"),
    "group": _any("groups"),
    "error": _take_error,
    "id": _take_id,
    "schedule": _take_schedule,
    "after": _take_after,
    "before": _take_before,
    "ended": _take_ended,
}
