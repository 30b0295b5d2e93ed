"""Secrets of webhooks at rest, and which of them sign at a given time. Pure but for the random bits of a new one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from worker.accounts import crypto

OVERLAP: Final = timedelta(hours=24)
"""For so long the secret before a rotation signs too, when nobody says otherwise."""
LONGEST_OVERLAP: Final = timedelta(days=7)


def seal(secret_key: str, secret: str) -> str:
    """`secret` as it is stored, encrypted under a key made of M_SECRET_KEY."""
    return crypto.encrypt(secret_key, secret)


def seal_headers(secret_key: str, headers: Mapping[str, str]) -> dict[str, str]:
    return {name: crypto.encrypt(secret_key, value) for name, value in headers.items()}


def open_headers(secret_key: str, sealed: Mapping[str, str]) -> dict[str, str]:
    """Raises SecretUnreadable when they were stored under another M_SECRET_KEY."""
    return {name: crypto.decrypt(secret_key, value) for name, value in sealed.items()}


def in_force(
    secret_key: str, current: str, previous: str | None, previous_until: datetime | None, now: datetime
) -> list[str]:
    """The secrets that sign at `now`, the newest first, from their stored forms.

    Raises:
        SecretUnreadable: stored under another M_SECRET_KEY.
    """
    sealed = [current]
    if previous is not None and previous_until is not None and now < previous_until:
        sealed.append(previous)
    return [crypto.decrypt(secret_key, token) for token in sealed]
