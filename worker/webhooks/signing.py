"""Signatures of Standard Webhooks 1.0 over the exact bytes that are sent, and one for older receivers. Pure."""

from __future__ import annotations

import binascii
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Final

PREFIX: Final = "whsec_"
NEW_BYTES: Final = 32
SHORTEST, LONGEST = 24, 64
"""How many bytes a secret may have; the specification's figures."""
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


def new_secret() -> str:
    """256 random bits as `whsec_` and base64."""
    return PREFIX + b64encode(secrets.token_bytes(NEW_BYTES)).decode()


def secret_problem(secret: str) -> str | None:
    """What is wrong with a secret that somebody brings, and what is allowed; None when it is good. Never names the secret."""
    try:
        key_of(secret)
    except ValueError as error:
        return str(error)
    return None


def key_of(secret: str) -> bytes:
    """The key: what the base64 after `whsec_` means, padding or not.

    Raises:
        ValueError: saying what is allowed.
    """
    allowed = f"must be {PREFIX} and the base64 of {SHORTEST} to {LONGEST} random bytes"
    if not secret.startswith(PREFIX):
        raise ValueError(allowed)
    text = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{allowed}: this is not base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"{allowed}: these are {len(key)}")
    return key


def headers(message_id: str, at: datetime, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """What the request carries: id, time and one signature for each secret in `keys`, the newest first.

    `message_id` is the same for every attempt, `at` is the attempt's own. `X-Webhook-Signature` is the hex HMAC-SHA256
    of the body alone, keyed with the newest secret as it is written, for receivers that know no Standard Webhooks.

    Raises:
        ValueError: an id with other characters than letters, digits, _ and -; no secret; a time without a zone.
    """
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError(f"the message id {message_id!r} must be 1 to 200 letters, digits, _ and -")
    if not keys:
        raise ValueError("a signature needs a secret")
    if at.tzinfo is None:
        raise ValueError("the time of an attempt needs a zone")
    second = int(at.timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(second),
        "webhook-signature": " ".join(signature(secret, message_id, second, body) for secret in keys),
        "X-Webhook-Signature": hmac.digest(keys[0].encode(), body, "sha256").hex(),
    }


def signature(secret: str, message_id: str, second: int, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `id.second.body`."""
    signed = b"%b.%d.%b" % (message_id.encode(), second, body)
    return "v1," + b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode()
