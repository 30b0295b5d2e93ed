"""The rules of access, pure: what a name and a password must be, how long a session lives, when guessing is slowed."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Final

from worker.accounts.actor import ROLES
from worker.errors import Invalid

# Sessions (OWASP ASVS 7.3)

SESSION_IDLE: Final = timedelta(minutes=30)
SESSION_LENGTH: Final = timedelta(hours=12)
SEEN_EVERY: Final = timedelta(minutes=2)
"""How often a session in use is marked as seen: a write per click would be a write per click."""


def session_lives(
    now: datetime, last_seen_at: datetime, expires_at: datetime, ended_at: datetime | None
) -> bool:
    return ended_at is None and now < expires_at and now - last_seen_at < SESSION_IDLE


# Guessing

ACCOUNT_FAILURES: Final = 5
ACCOUNT_WINDOW: Final = timedelta(minutes=5)
ACCOUNT_PAUSES_S: Final = (30, 60, 120, 240, 480, 900)
"""How long the account waits after its sixth failure, its seventh, …; the last one for all that follow."""
ADDRESS_FAILURES: Final = 30
ADDRESS_WINDOW: Final = timedelta(minutes=1)

# Names and passwords (NIST SP 800-63B: length and a list of known passwords, no composition rules, no truncation)

PASSWORD_SHORTEST: Final = 8
PASSWORD_LONGEST: Final = 1000
NAME = re.compile(r"^[^\W_](?:[\w.@+\- ]{0,98}[^\W_])?$")


def checked_name(name: str) -> str:
    """The name in its one written form.

    Raises:
        Invalid: for a name that is empty, longer than 100 characters, or has others than letters, digits, `. _ @ + -`
            and single spaces inside.
    """
    name = unicodedata.normalize("NFKC", name).strip()
    if not NAME.match(name) or "  " in name:
        allowed = "letters and digits, with . _ @ + - or single spaces between them, at most 100 characters"
        raise Invalid({"name": f"must be {allowed}"})
    return name


def checked_role(role: str) -> str:
    if role not in ROLES:
        raise Invalid({"role": f"must be one of {', '.join(ROLES)}"})
    return role


def check_password(password: str, name: str) -> None:
    """Raises Invalid with what is wrong with a new password and what to do about it."""
    problem = _password_problem(password, name)
    if problem:
        raise Invalid({"password": problem})


def _password_problem(password: str, name: str) -> str | None:
    plain = password.casefold()
    if len(password) < PASSWORD_SHORTEST:
        return f"is too short: at least {PASSWORD_SHORTEST} characters, a few words are easiest to remember"
    if len(password) > PASSWORD_LONGEST:
        return f"is longer than {PASSWORD_LONGEST} characters"
    if "\x00" in password:
        return "holds a character that cannot be typed"
    if name and plain in (name.casefold(), name.casefold()[::-1]):
        return "is the same as the name"
    if plain in _known_passwords():
        return "is one of the passwords that everybody tries first: choose another"
    if _is_a_pattern(plain):
        return "is a pattern that is easily guessed: choose another"
    return None


def _is_a_pattern(plain: str) -> bool:
    """A character or a short piece repeated (aaaaaaaa, abcabcabc), or a run like 23456789 and hgfedcba."""
    if plain in (plain + plain)[1:-1]:
        return True
    steps = {ord(after) - ord(before) for before, after in pairwise(plain)}
    return steps in ({1}, {-1})


@cache
def _known_passwords() -> frozenset[str]:
    """The 30,000 most used passwords of published breaches, from zxcvbn's list; read when first needed."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    return frozenset(FREQUENCY_LISTS["passwords"])
