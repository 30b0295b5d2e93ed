"""Headers that a person gives a webhook: which are allowed, which are secret, and how both are shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from worker.jobs.secret import MASK

MOST: Final = 50
LONGEST_VALUE: Final = 4_000
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")

RESERVED: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "expect", "host", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "x-webhook-signature",
    }
)  # fmt: skip
"""What the request sets itself; so is every name that begins with `webhook-`."""

ALWAYS_SECRET: Final = frozenset(
    {"authorization", "cookie", "x-api-key", "x-auth-token", "x-access-token", "api-key", "private-token"}
)
"""These are stored encrypted and shown masked, whether or not somebody said so."""
_SIGNATURES: Final = ("webhook-signature", "x-webhook-signature")
_RECEIVED_SECRETS: Final = ("set-cookie", "www-authenticate", "authorization")


def problem(headers: Mapping[str, str]) -> str | None:
    """What is wrong with the first bad header and what is allowed; None when all are good."""
    if len(headers) > MOST:
        return f"has {len(headers)} headers; {MOST} is the most"
    if len({name.lower() for name in headers}) < len(headers):
        return "names one header twice"
    return next((what for name, value in headers.items() if (what := _problem(name, value))), None)


def split(headers: Mapping[str, str], secret: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The headers to store as they are, and those to store encrypted: the named ones and what always is a secret."""
    hidden = {name.lower() for name in secret} | ALWAYS_SECRET
    plain = {name: value for name, value in headers.items() if name.lower() not in hidden}
    return plain, {name: value for name, value in headers.items() if name not in plain}


def redacted(sent: Iterable[tuple[str, str]], secret: Iterable[str]) -> dict[str, str]:
    """The headers of a request as they are kept: secrets and signatures masked."""
    hidden = {name.lower() for name in secret} | ALWAYS_SECRET | set(_SIGNATURES)
    return {name: MASK if name.lower() in hidden else value for name, value in sent}


def redacted_answer(received: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of an answer as they are kept: cookies masked, repeated ones joined, the whole bounded."""
    kept: dict[str, str] = {}
    for name, value in list(received)[:100]:
        shown = MASK if name.lower() in _RECEIVED_SECRETS else value[:LONGEST_VALUE].replace("\x00", "\ufffd")
        kept[name] = f"{kept[name]}, {shown}"[:LONGEST_VALUE] if name in kept else shown
    return kept


def _problem(name: str, value: str) -> str | None:
    if not _NAME.fullmatch(name):
        return f"has the name {name[:100]!r}: letters, digits and !#$%&'*+-.^_`|~ are allowed"
    if name.lower() in RESERVED or name.lower().startswith("webhook-"):
        return f"has {name}, which the request sets itself"
    if len(value) > LONGEST_VALUE or not _VALUE.fullmatch(value):
        return (
            f"has a value of {name} that is not 1 to {LONGEST_VALUE} printable ASCII characters in one line"
        )
    return None
