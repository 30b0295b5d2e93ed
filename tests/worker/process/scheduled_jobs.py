"""A module whose code has a schedule: what a worker makes known and the clerk applies."""

from __future__ import annotations

from worker import cron, job


@job(retry=0, schedule=[{"cron": "every 1s", "name": "tick", "overlap": "allow", "missed": "all"}])
async def tick() -> None:
    """Runs every second."""


cron_jobs = [cron("tick", hour=3)]
