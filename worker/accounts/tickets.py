"""Tokens that work once: set-up links and stream tickets. Two processes that see one at the same instant: one wins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.crypto import new_token, token_hash
from worker.accounts.models import OneTimeToken
from worker.db.base import utc_now

SETUP: Final = "setup"
STREAM: Final = "stream"
SETUP_LIFE: Final = timedelta(minutes=15)
STREAM_LIFE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a token stood for."""

    user_id: UUID | None
    subject: dict[str, Any]


async def issue(
    session: AsyncSession,
    purpose: str,
    life: timedelta,
    *,
    user_id: UUID | None = None,
    subject: dict[str, Any] | None = None,
) -> str:
    """A new token; only its hash is stored."""
    token, now = new_token(), utc_now()
    session.add(
        OneTimeToken(
            token_hash=token_hash(token),
            purpose=purpose,
            user_id=user_id,
            subject=subject or {},
            created_at=now,
            expires_at=now + life,
        )
    )
    await session.flush()
    return token


async def consume(session: AsyncSession, purpose: str, token: str) -> Ticket | None:
    """Uses the token up, in one statement; None when it is wrong, used or too old."""
    row = (
        await session.execute(
            sa.delete(OneTimeToken)
            .where(
                OneTimeToken.token_hash == token_hash(token),
                OneTimeToken.purpose == purpose,
                OneTimeToken.expires_at > utc_now(),
            )
            .returning(OneTimeToken.user_id, OneTimeToken.subject)
        )
    ).one_or_none()
    return Ticket(row.user_id, row.subject) if row else None


async def is_good(session: AsyncSession, purpose: str, token: str) -> bool:
    """Whether the token would work now. Looking does not use it up."""
    found = await session.scalar(
        sa.select(OneTimeToken.token_hash).where(
            OneTimeToken.token_hash == token_hash(token),
            OneTimeToken.purpose == purpose,
            OneTimeToken.expires_at > utc_now(),
        )
    )
    return found is not None
