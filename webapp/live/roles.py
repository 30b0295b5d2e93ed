"""Which roles may see a fact: on the stream, on the page of events and in the API alike."""

from __future__ import annotations

from typing import Any, Final

from worker.accounts.actor import Actor

ADMIN_DOCTYPES: Final = frozenset({"User", "Session", "ApiToken"})
"""Facts about people are for admins, as their pages are."""


def role_for(event: dict[str, Any]) -> str:
    """The lowest role that may see this fact."""
    data = event.get("data")
    doctype = event.get("doctype") or (data.get("doctype") if isinstance(data, dict) else None)
    return "admin" if doctype in ADMIN_DOCTYPES else "viewer"


def may_see(role: str, needed: str) -> bool:
    return Actor("", role).at_least(needed)
