"""What the settings page reads: how retention does."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.process.models import Upkeep


async def upkeep(connection: AsyncConnection) -> dict[str, sa.Row[Any]]:
    """By table: when it was last looked at, and how many rows were removed so far."""
    rows = await connection.execute(sa.select(Upkeep.what, Upkeep.last_run_at, Upkeep.removed))
    return {row.what: row for row in rows}
