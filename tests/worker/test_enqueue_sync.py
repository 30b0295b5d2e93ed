"""Synchronous code enqueues too: on the engine of its process, or on one made for the call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from worker import enqueue_sync, job, testing
from worker.db.base import new_id
from worker.engine import Engine
from worker.errors import Invalid
from worker.joblogs.models import JobLog
from worker.jobs.registry import Registry
from worker.settings import Settings


@job
def greet(name: str) -> str:
    return name


async def test_a_thread_enqueues_on_the_engine_of_its_process() -> None:
    async with testing.desk(greet) as desk:
        job_id = await asyncio.to_thread(greet.enqueue_sync, name="Ada")
        await desk.run_until_idle()
        assert (await desk.job(job_id)).result == "Ada"


async def test_what_does_not_fit_is_raised_where_it_was_asked_for() -> None:
    async with testing.desk(greet) as desk:
        with pytest.raises(Invalid, match="name: is required"):
            await asyncio.to_thread(enqueue_sync, "greet", {})
        assert await desk.jobs() == []


def test_a_program_without_an_engine_gets_one_for_the_call(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NATS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("M_HOME", str(tmp_path))
    asyncio.run(_advertise())
    job_id = enqueue_sync("greet", {"name": "Ada"}, priority=1)
    assert asyncio.run(_stored()) == [(job_id, "queued", 1)]
    assert Engine.running is None


async def _advertise() -> None:
    async with Engine.create(Settings.from_env()) as engine:
        await engine.catalogue.advertise(Registry([greet]), new_id())


async def _stored() -> list[tuple[UUID, str, int]]:
    async with Engine.create(Settings.from_env()) as engine, engine.database.session() as session:
        return [
            tuple(row) for row in await session.execute(sa.select(JobLog.id, JobLog.status, JobLog.priority))
        ]
