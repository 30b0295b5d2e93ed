"""Whoever watches the process learns whether it can work, and nothing else."""

import httpx
import pytest
import sqlalchemy as sa

from webapp.health import Readiness
from worker.engine import Engine


async def test_both_are_open(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert (answer.json()["database"], answer.json()["migrations"]) == ("ok", "ok")


async def test_a_database_that_lacks_a_migration_is_not_ready(
    http: httpx.AsyncClient,
    engine: Engine,
) -> None:
    async with engine.database.transaction() as session:
        await session.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["migrations"]) == (503, "failed")


async def test_a_database_without_tables_is_not_ready_and_names_no_inside(
    http: httpx.AsyncClient,
    engine: Engine,
) -> None:
    async with engine.database.transaction() as session:
        await session.execute(sa.text("DROP TABLE alembic_version"))
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json().values()) <= {"ok", "failed", "degraded"}


async def test_a_broker_that_is_away_is_degraded_and_still_ready(
    http: httpx.AsyncClient,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away:
        connected = False

    readiness = Readiness(engine)
    monkeypatch.setattr(engine, "doorbells", Away())
    ready = await readiness.ask()
    assert (ready.status, ready.broker, ready.database) == ("degraded", "degraded", "ok")
