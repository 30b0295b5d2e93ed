"""How often a person may have a test sent: a button must not become a way to flood somebody."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts import throttle
from worker.db.session import now_of
from worker.errors import Throttled

TESTS: Final = throttle.Limit(5, timedelta(minutes=1), (60,))
"""Tests of one webhook in a minute, over all processes."""


async def count_test(session: AsyncSession, webhook_id: UUID) -> None:
    """Counts one test in the transaction that sends it. Raises Throttled beyond five a minute."""
    wait_s = await throttle.count(session, f"webhook test {webhook_id}", TESTS, await now_of(session))
    if wait_s:
        raise Throttled(retry_after_s=wait_s)
