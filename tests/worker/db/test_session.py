"""A database that is being closed while tasks are cancelled still closes."""

from __future__ import annotations

import asyncio
import contextlib

from worker.db.session import Database


async def test_a_connection_that_was_stopped_can_still_be_closed(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        driver.stop()
        with contextlib.suppress(ValueError):  # aiosqlite's word for: it is closed
            await asyncio.wait_for(driver.close(), 10)
    await asyncio.wait_for(database.close(), 10)
