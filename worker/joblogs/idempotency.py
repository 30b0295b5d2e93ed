"""A client's Idempotency-Key: whoever repeats a request gets the job that the first one made."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import new_id, utc_now
from worker.errors import IdempotencyMismatch
from worker.joblogs.models import IdempotencyKey


async def claim_key(session: AsyncSession, key: str, user: str, body_hash: str) -> UUID | None:
    """None when this transaction is the first with `key`; else the job of the one that was.

    Others with the same key wait for this transaction; `settle_key` says which job it made. A rollback frees the key.

    Raises:
        IdempotencyMismatch: the first one had another body.
    """
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    mine = insert(IdempotencyKey).values(
        key=key, user_id=user, body_hash=body_hash, job_id=new_id(), created_at=utc_now()
    )
    if await session.scalar(mine.on_conflict_do_nothing().returning(IdempotencyKey.key)) is not None:
        return None
    first = (await session.execute(sa.select(IdempotencyKey).where(*_is(key, user)))).scalar_one()
    if first.body_hash != body_hash:
        raise IdempotencyMismatch(key=key)
    return first.job_id


async def settle_key(session: AsyncSession, key: str, user: str, job_id: UUID) -> None:
    """Names the job that the first request with this key led to."""
    await session.execute(
        sa.update(IdempotencyKey)
        .where(*_is(key, user))
        .values(job_id=job_id)
        .execution_options(synchronize_session=False)
    )


def _is(key: str, user: str) -> tuple[sa.ColumnElement[bool], ...]:
    return IdempotencyKey.key == key, IdempotencyKey.user_id == user
