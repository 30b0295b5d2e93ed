"""Schedules of code: the newest live version holds, deploys that overlap revert and retire nothing wrongly."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.schedules.conftest import Desk
from worker import Secret, job
from worker.db.base import new_id, utc_now
from worker.jobs.registry import Registry
from worker.process.models import Worker
from worker.schedules import actions
from worker.schedules.code import Advert, advertised, apply_code, newest
from worker.schedules.models import ScheduledJob

KEY = "a key for tests that is long enough to be one"


def advert(cron: str = "0 9 * * *", key: str = "add", module: str = "acme.jobs") -> dict[str, Any]:
    definition = {"function": "add", "cron_expression": cron, "time_zone": "UTC", "args": {}}
    return {"key": key, "name": key, "module": module, "hash": f"{key} {cron}", "definition": definition}


class Fleet:
    """Workers that come and go."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def start(
        self, *adverts: dict[str, Any], age_s: float = 0, modules: tuple[str, ...] = ("acme",)
    ) -> UUID:
        worker_id = new_id()
        async with self.desk.database.transaction() as session:
            now = utc_now()
            session.add(
                Worker(
                    id=worker_id, supervisor_id=new_id(), kind="worker", host="here", pid=1, beat_at=now,
                    started_at=now - timedelta(seconds=age_s), modules=list(modules), schedules=list(adverts),
                )
            )  # fmt: skip
        return worker_id

    async def end(self, worker_id: UUID) -> None:
        async with self.desk.database.transaction() as session:
            await session.execute(sa.update(Worker).where(Worker.id == worker_id).values(ended_at=utc_now()))

    async def look(self, now: datetime | None = None) -> dict[str, str]:
        """What the table has after a look: expressions by name; retired ones as such."""
        await apply_code(self.desk.database, now)
        async with self.desk.database.session() as session:
            rows = (await session.scalars(sa.select(ScheduledJob).order_by(ScheduledJob.name))).all()
        return {row.name: "retired" if row.retired_at else row.cron_expression for row in rows}

    async def only(self) -> ScheduledJob:
        async with self.desk.database.session() as session:
            return (await session.scalars(sa.select(ScheduledJob))).one()


async def test_what_code_has_is_stored_once_and_is_due(desk: Desk) -> None:
    fleet = Fleet(desk)
    await fleet.start(advert(), advert("0 8 * * *", key="add 2"))
    await fleet.start(advert(), advert("0 8 * * *", key="add 2"))
    await asyncio.gather(*(apply_code(desk.database) for _ in range(4)))
    assert await fleet.look() == {"add": "0 9 * * *", "add 2": "0 8 * * *"}
    async with desk.database.session() as session:
        rows = (await session.scalars(sa.select(ScheduledJob))).all()
    assert all(
        row.next_fire_at is not None and row.module == "acme.jobs" and row.version == 1 for row in rows
    )


async def test_a_new_version_replaces_the_old_and_keeps_history_and_switch(desk: Desk) -> None:
    fleet = Fleet(desk)
    old = await fleet.start(advert())
    await fleet.look()
    made = await fleet.only()
    await desk.do(actions.disable, made.id)
    await fleet.start(advert("0 10 * * *"))
    assert await fleet.look() == {"add": "0 10 * * *"}
    await fleet.end(old)
    assert await fleet.look() == {"add": "0 10 * * *"}
    assert ((await fleet.only()).id, (await fleet.only()).enabled) == (made.id, False)


async def test_an_old_worker_that_starts_late_brings_nothing_back_and_a_real_rollback_does(
    desk: Desk,
) -> None:
    fleet = Fleet(desk)
    await fleet.start(advert())
    await fleet.look()
    new = await fleet.start(advert("0 10 * * *"))
    await fleet.look()
    await fleet.start(advert())
    assert await fleet.look() == {"add": "0 10 * * *"}
    await fleet.end(new)
    assert await fleet.look() == {"add": "0 9 * * *"}


async def test_only_what_a_worker_that_loads_the_module_lacks_for_ten_minutes_is_retired(desk: Desk) -> None:
    fleet = Fleet(desk)
    first = await fleet.start(advert())
    await fleet.look()
    await fleet.end(first)
    assert await fleet.look() == {"add": "0 9 * * *"}  # nobody lives
    await fleet.start(modules=("other", "acmeology"), age_s=9999)
    assert await fleet.look() == {"add": "0 9 * * *"}  # it loads other modules
    await fleet.start(age_s=500)
    assert await fleet.look() == {"add": "0 9 * * *"}  # it lives too short
    await fleet.start(age_s=601)
    assert await fleet.look() == {"add": "retired"}
    assert (await fleet.only()).next_fire_at is None
    await fleet.start(advert())
    assert await fleet.look() == {"add": "0 9 * * *"}
    assert (await fleet.only()).next_fire_at is not None


async def test_a_desk_edit_lasts_until_the_next_deploy(desk: Desk) -> None:
    fleet = Fleet(desk)
    await fleet.start(advert())
    await fleet.look()
    made = await fleet.only()
    await desk.do(actions.edit, made.id, {"cron_expression": "0 7 * * *"})
    await desk.put(made.id, edited_at=utc_now() + timedelta(seconds=5))
    assert await fleet.look() == {"add": "0 7 * * *"}
    await desk.put(made.id, edited_at=utc_now() - timedelta(seconds=5))
    await fleet.start(advert())
    assert await fleet.look() == {"add": "0 9 * * *"}
    assert (await fleet.only()).edited_at is None


async def test_a_name_that_people_use_already_stays_theirs(desk: Desk) -> None:
    await desk.create(name="add")
    fleet = Fleet(desk)
    await fleet.start(advert())
    assert await fleet.look() == {"add": "0 * * * *", "add (code)": "0 9 * * *"}


def test_a_workers_row_tells_its_schedules_without_their_secrets() -> None:
    @job(
        name="charge",
        schedule=[
            {"cron": "0 9 * * *", "args": {"key": "hush", "n": 1}},
            {"cron": "every 5m", "name": "often", "args": {"key": "x"}},
        ],
    )
    def charge(key: Secret[str], n: int = 0) -> None: ...

    registry = Registry([charge])
    first, second = advertised(registry, KEY)
    assert (first["key"], first["name"], second["key"], second["name"]) == (
        "charge",
        "charge",
        "charge#often",
        "often",
    )
    assert "hush" not in str(first)
    assert first["definition"]["args"]["n"] == 1
    assert advertised(registry, KEY)[0]["hash"] == first["hash"]
    assert "hush" not in str(charge.definition.catalogue_row())


def test_schedules_of_other_modules_have_keys_of_their_own() -> None:
    @job(
        name="charge",
        schedule=[
            {"cron": "@daily"},
            {"cron": "@hourly", "module": "acme.crons"},
            {"cron": "@weekly", "module": "acme.more"},
        ],
    )
    def charge() -> None: ...

    told = [(one["key"], one["module"]) for one in advertised(Registry([charge]), KEY)]
    assert told == [
        ("charge", __name__),
        ("charge@acme.crons", "acme.crons"),
        ("charge@acme.more", "acme.more"),
    ]


versions = st.sampled_from("abcd")


@given(versions, st.lists(versions, unique=True), st.lists(versions, min_size=1, max_size=6))
def test_a_version_that_was_replaced_never_returns_while_the_current_one_lives(
    current: str, seen: list[str], alive: list[str]
) -> None:
    seen = [*(one for one in seen if one != current), current]
    chosen = newest(current, seen, [Advert("k", "k", "m", of, new_id(), {}) for of in alive]).hash
    if current in alive:
        assert chosen == current or chosen not in seen
    else:
        assert chosen == alive[-1]
