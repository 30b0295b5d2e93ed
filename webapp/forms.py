"""Reads a form's fields, collects what is wrong with them, and keeps what was typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from litestar import Request
from litestar.datastructures import UploadFile

from worker.errors import Invalid

T = TypeVar("T", bound=str)


class Form:
    """The fields of a sent form. Each reader notes a problem under the field's name instead of stopping at the first."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.values: dict[str, list[str]] = {}
        self.problems: dict[str, str] = {}
        for name, value in pairs:
            text = "" if isinstance(value, UploadFile) else str(value)
            if "\x00" in text:
                self.problems[name] = "holds a character that cannot be stored"
            self.values.setdefault(name, []).append(text)

    def text(self, name: str, default: str = "") -> str:
        """One field's text as it was typed; two fields of this name are a problem."""
        found = self.values.get(name, [])
        if len(found) > 1:
            self.problems[name] = "was given more than once"
        return found[0] if found else default

    def words(self, name: str, default: str = "") -> str:
        """The text without space around it."""
        return self.text(name, default).strip()

    def required(self, name: str) -> str:
        value = self.words(name)
        if not value:
            self.problems.setdefault(name, "is needed")
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str = "") -> str:
        value = self.words(name, default)
        if value not in allowed:
            self.problems.setdefault(name, f"must be one of {', '.join(allowed)}")
        return value

    def many(self, name: str) -> list[str]:
        """All values of a field that may come several times, like the boxes of a selection."""
        return list(self.values.get(name, []))

    def flag(self, name: str) -> bool:
        """Whether a box was ticked."""
        return self.text(name) not in ("", "0", "false", "off")

    def check(self) -> None:
        """Raises Invalid with every problem noted so far."""
        if self.problems:
            raise Invalid(self.problems)


async def read_form(request: Request[Any, Any, Any]) -> Form:
    return Form(list((await request.form()).multi_items()))
