"""What M_SECRET_KEY is used for: a key of its own for each purpose; secrets at rest; signatures of small texts."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.errors import SecretUnreadable


def encrypt(secret_key: str, text: str) -> str:
    """`text` as a Fernet token (AES-128-CBC with HMAC-SHA256), to be stored."""
    return _fernet(secret_key).encrypt(text.encode()).decode()


def decrypt(secret_key: str, token: str) -> str:
    """The text of a token made by `encrypt`.

    Raises:
        SecretUnreadable: when the token was made under another M_SECRET_KEY, or was changed.
    """
    try:
        return _fernet(secret_key).decrypt(token.encode()).decode()
    except (InvalidToken, UnicodeError) as error:
        raise SecretUnreadable from error


def sign(secret_key: str, purpose: str, text: str) -> str:
    """A signature of `text` that holds for `purpose` only, safe in URLs and cookies."""
    digest = hmac.digest(_key(secret_key, purpose), text.encode(), "sha256")
    return urlsafe_b64encode(digest).decode().rstrip("=")


def signed_by_us(secret_key: str, purpose: str, text: str, signature: str) -> bool:
    return hmac.compare_digest(sign(secret_key, purpose, text).encode(), signature.encode())


def new_token() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a random token: with 256 bits to guess, a plain SHA-256 is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


@lru_cache(maxsize=32)
def _key(secret_key: str, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=f"m-desk {purpose}".encode()).derive(secret_key.encode())


@lru_cache(maxsize=4)
def _fernet(secret_key: str) -> Fernet:
    return Fernet(urlsafe_b64encode(_key(secret_key, "secrets at rest")))
