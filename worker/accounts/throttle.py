"""Counts guesses in the database, so that all web processes agree; each attempt is counted before it is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts import policy
from worker.accounts.models import Throttle as Row
from worker.db.base import Time
from worker.errors import Throttled


@dataclass(frozen=True, slots=True)
class Limit:
    """After `failures` within `window` each further one waits longer: `pauses_s`, the last for all that follow."""

    failures: int
    window: timedelta
    pauses_s: Sequence[int]


ACCOUNT: Final = Limit(policy.ACCOUNT_FAILURES, policy.ACCOUNT_WINDOW, policy.ACCOUNT_PAUSES_S)
ADDRESS: Final = Limit(policy.ADDRESS_FAILURES, policy.ADDRESS_WINDOW, (60,))


async def count(session: AsyncSession, key: str, limit: Limit, now: datetime) -> int:
    """Counts one attempt under `key`; answers the seconds to wait if it fails too (0 within the limit).

    Raises:
        Throttled: when the key is waiting already; that attempt is not judged at all.
    """
    statement = _upsert(session, key, limit, now)
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        until = await session.scalar(sa.select(Row.blocked_until).where(Row.key == key))
        raise Throttled(retry_after_s=_seconds(until, now))
    return _seconds(row.blocked_until, now) if row.blocked_until else 0


async def forgive(session: AsyncSession, account_key: str, address_key: str) -> None:
    """The attempt was right: the account starts afresh, and it does not count against the address."""
    await session.execute(sa.delete(Row).where(Row.key == account_key))
    await session.execute(
        sa.update(Row)
        .where(Row.key == address_key, Row.failures > 0)
        .values(
            failures=Row.failures - 1,
            blocked_until=sa.case((Row.failures - 1 <= ADDRESS.failures, None), else_=Row.blocked_until),
        )
    )


def _upsert(session: AsyncSession, key: str, limit: Limit, now: datetime) -> Any:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    quiet = sa.and_(
        Row.window_started_at <= now - limit.window,
        sa.or_(Row.blocked_until.is_(None), Row.blocked_until <= now - timedelta(seconds=limit.pauses_s[-1])),
    )
    failures = sa.case((quiet, 1), else_=Row.failures + 1)
    pauses = [
        (failures == limit.failures + nth, _at(now, pause))
        for nth, pause in enumerate(limit.pauses_s, start=1)
    ]
    return (
        insert(Row)
        .values(key=key[:300], failures=1, window_started_at=now)
        .on_conflict_do_update(
            index_elements=[Row.key],
            set_={
                "failures": failures,
                "window_started_at": sa.case((quiet, _at(now)), else_=Row.window_started_at),
                "blocked_until": sa.case(
                    (failures <= limit.failures, sa.null()), *pauses, else_=_at(now, limit.pauses_s[-1])
                ),
            },
            where=sa.or_(Row.blocked_until.is_(None), Row.blocked_until <= now),
        )
        .returning(Row.failures, Row.blocked_until)
    )


def _at(now: datetime, seconds: int = 0) -> sa.ColumnElement[datetime]:
    return sa.literal(now + timedelta(seconds=seconds), Time)


def _seconds(until: datetime | None, now: datetime) -> int:
    return max(1, math.ceil((until - now).total_seconds())) if until else 1
