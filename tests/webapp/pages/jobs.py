"""Jobs as a user of the desk writes them, with every kind of parameter."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from worker import JobContext, Secret, job

BROKEN: set[str] = set()
"""Addresses that cannot be reached for now."""


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@job(queue="mail", retry=0)
async def send_email(to: str, subject: str = "hello") -> dict[str, str]:
    """Sends one message.

    Over SMTP.
    """
    if to in BROKEN:
        raise ValueError(f"no such address: {to}")
    return {"sent": to}


@job(retry=0)
async def convert(
    path: str,
    size: Size,
    pages: int = 3,
    scale: Decimal = Decimal("1.5"),
    day: date | None = None,
    at: datetime | None = None,
    tags: list[str] | None = None,
    options: dict[str, Any] | None = None,
    dry: bool = False,
) -> dict[str, Any]:
    """Converts a file."""
    return {"path": path, "size": size.value, "pages": pages, "dry": dry, "tags": tags}


@job(retry=0)
async def pay(amount: int, key: Secret[str]) -> dict[str, int]:
    """Pays, with a key that nobody sees."""
    return {"length": len(key.reveal())}


@job(retry=0)
async def talk(ctx: JobContext, lines: int = 3) -> None:
    """Logs some lines."""
    for number in range(lines):
        await ctx.log(f"line {number}")


ALL = (send_email, convert, pay, talk)
