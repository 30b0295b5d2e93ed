"""Passwords as argon2id hashes, computed in threads, two at a time."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from worker.accounts.policy import check_password
from worker.errors import Throttled

AT_ONCE: Final = 2
MOST_WAITING: Final = 6
"""More callers than this are told to come back: a flood of sign-ins must not eat the machine (OWASP ASVS 15.2.2)."""

T = TypeVar("T")

_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
"""OWASP's minimum, which takes about 40 ms: https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html"""

NOBODY: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$Zm9yLXVua25vd24tdXNlcg$NqWgWV7QOZ0cmPpsPYDZUO4SE9R5f5D2N8uGNbiJXWc"
)
"""Checked when there is no such user, so that both answers take the same time. Nothing matches it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether the password was right, and its new hash when the stored one has older parameters."""

    right: bool
    new_hash: str | None = None


async def hash_password(password: str, name: str) -> str:
    """The hash of a new password for `name`.

    Raises:
        Invalid: for a password that the policy refuses.
        Throttled: when too many are being computed.
    """
    check_password(password, name)
    return await _in_thread(lambda: _hasher.hash(_normal(password)))


async def verify(password_hash: str | None, password: str) -> Checked:
    """Compares in constant time; None (no such user, or a service account) takes as long as a wrong password."""
    return await _in_thread(lambda: _verify(password_hash, _normal(password)))


def busy() -> bool:
    """Whether the next one would be refused."""
    return len(_under_way) >= AT_ONCE + MOST_WAITING


def _verify(password_hash: str | None, password: str) -> Checked:
    try:
        _hasher.verify(password_hash or NOBODY, password)
    except (VerificationError, InvalidHashError):
        return Checked(right=False)
    if password_hash is None:
        return Checked(right=False)
    old = _hasher.check_needs_rehash(password_hash)
    return Checked(right=True, new_hash=_hasher.hash(password) if old else None)


def _normal(password: str) -> str:
    """One spelling for what looks the same from another keyboard (RFC 8265). Nothing is cut off."""
    return unicodedata.normalize("NFC", password)


async def _in_thread(work: Callable[[], T]) -> T:
    if busy():
        raise Throttled(retry_after_s=1)
    future = _threads.submit(work)
    _under_way.add(future)
    try:
        return await asyncio.wrap_future(future)
    finally:
        _under_way.discard(future)


_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
_under_way: set[Future[Any]] = set()
