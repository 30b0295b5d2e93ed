"""NATS-style patterns over topics, pure: `doc.*` is one word more, `job.>` one or more. Used by streams and webhooks."""

from __future__ import annotations

import re

MAX_LENGTH = 300
_WORD = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,62}|\*)")


def problem(pattern: str) -> str | None:
    """What is wrong with a pattern and what is allowed; None when it is good."""
    if not pattern or len(pattern) > MAX_LENGTH:
        return f"must have 1 to {MAX_LENGTH} characters"
    words = pattern.split(".")
    if ">" in words[:-1]:
        return "may hold > only as its last word"
    if words[-1] == ">":
        words.pop()
    if not all(_WORD.fullmatch(word) for word in words):
        return (
            "must be words of a-z, 0-9, _ and - joined by dots, with * for one word or > for all that follow"
        )
    return None


def matches(pattern: str, topic: str) -> bool:
    """Whether a good pattern means this topic."""
    wanted, words = pattern.split("."), topic.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(w in ("*", word) for w, word in zip(wanted, words, strict=True))


def is_open(pattern: str) -> bool:
    """Whether its first word is a wildcard, so that it means topics of every kind."""
    return pattern.split(".", maxsplit=1)[0] in ("*", ">")
