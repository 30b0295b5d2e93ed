"""Who acts: the name that every change, event and audit entry carries."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from worker.errors import Denied

ROLES: Final = ("viewer", "operator", "admin")
"""From the least right to the most: reads; runs, retries, cancels, edits, pauses; everything."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone who does something. `via` is `desk`, `api`, `cli` or `engine`."""

    name: str
    role: str = "admin"
    via: str = "desk"
    ip: str = ""
    request_id: str = ""
    user_id: UUID | None = None

    def at_least(self, role: str) -> bool:
        return rank(self.role) >= rank(role)

    def require(self, role: str) -> None:
        """Raises Denied unless this actor has `role` or a higher one."""
        if not self.at_least(role):
            raise Denied(role=role, actual=self.role or "not signed in")


ENGINE: Final = Actor("engine", via="engine")
"""What the desk does by itself."""


def cli_actor() -> Actor:
    """Whoever runs the `m` command on this machine: they hold the database, so they may do everything."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user id without a name
        name = "unknown"
    return Actor(f"{name} (command line)", via="cli")


def rank(role: str) -> int:
    """The role's place in ROLES; 0 for none at all."""
    return ROLES.index(role) + 1 if role in ROLES else 0


def lesser(one: str, other: str) -> str:
    """The role with fewer rights: a token never exceeds its owner."""
    return min(one, other, key=rank)
