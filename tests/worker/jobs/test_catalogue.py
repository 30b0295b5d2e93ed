"""What workers advertise is what everybody else can enqueue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from worker import job
from worker.db.base import new_id
from worker.db.session import Database, Pending
from worker.errors import Invalid
from worker.jobs import catalogue
from worker.jobs.catalogue import Catalogue
from worker.jobs.models import JobCatalogue, Queue
from worker.jobs.registry import Registry


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CACHE_S", -1.0)


def version(queue: str = "mail", **options: Any) -> Registry:
    @job(name="send", queue=queue, retry=5, **options)
    def send(to: str, copies: int = 1) -> None:
        """Sends."""

    return Registry([send])


async def rows(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list(
            (await connection.execute(sa.select(JobCatalogue.__table__).order_by(JobCatalogue.name))).all()
        )


async def test_another_process_checks_arguments_without_the_code(database: Database) -> None:
    await Catalogue(database).advertise(version(), new_id())
    offer = await Catalogue(database).get(None, "send")
    assert offer is not None
    assert (offer.name, offer.queue, offer.max_retries, offer.timeout_s) == ("send", "mail", 5, 300.0)
    assert [field.name for field in offer.fields] == ["to", "copies"]
    assert offer.validate({"to": "ada"}) == {"to": "ada"}
    with pytest.raises(Invalid) as caught:
        offer.validate({"copies": "x"})
    assert caught.value.problems == {"to": "is required", "copies": "must be a whole number, not 'x'"}


async def test_an_offer_is_read_in_the_callers_transaction(database: Database) -> None:
    await Catalogue(database).advertise(version(), new_id())
    async with database.transaction() as session:
        assert await Catalogue(database).get(session, "send") is not None
        assert await Catalogue(database).get(session, "nobody") is None


async def test_the_process_that_has_the_code_needs_no_table(database: Database) -> None:
    own = Catalogue(database, version())
    offer = await own.get(None, "send")
    assert offer is not None
    assert offer.job is not None
    assert (offer.max_retries, offer.timeout_s) == (5, None)
    assert [each.name for each in await own.all()] == ["send"]
    assert await rows(database) == []


async def test_advertising_again_tells_nobody_unless_something_changed(database: Database) -> None:
    told: list[Pending] = []

    async def listen(pending: Pending) -> None:
        told.append(pending)

    database.on_commit = listen
    mine = Catalogue(database)
    await mine.advertise(version(), new_id())
    first = (await rows(database))[0]
    await mine.advertise(version(), new_id())
    again = (await rows(database))[0]
    assert (again.rev, again.first_seen_at) == (1, first.first_seen_at)
    assert again.advertised_at >= first.advertised_at
    await Catalogue(database).advertise(version(queue="post"), new_id())
    assert ((await rows(database))[0].rev, (await rows(database))[0].queue) == (2, "post")
    await database.close()
    assert [pending.changes for pending in told if pending.changes] == [
        {("catalogue", "send"): 1},
        {("catalogue", "send"): 2},
    ]


async def test_an_old_workers_refresh_does_not_overwrite_a_new_version(database: Database) -> None:
    old, new = Catalogue(database), Catalogue(database)
    await old.advertise(version(queue="old"), new_id())
    await new.advertise(version(queue="new"), new_id())
    await old.advertise(version(queue="old"), new_id())
    assert (await rows(database))[0].queue == "new"


async def test_what_an_operator_set_stays(database: Database) -> None:
    await Catalogue(database).advertise(version(), new_id())
    async with database.transaction() as session:
        await session.execute(sa.update(JobCatalogue).values(concurrency=2, pause_reason="tea"))
    await Catalogue(database).advertise(version(queue="post"), new_id())
    row = (await rows(database))[0]
    assert (row.queue, row.concurrency, row.pause_reason) == ("post", 2, "tea")


async def test_a_queue_that_a_job_names_exists(database: Database) -> None:
    await Catalogue(database).advertise(version(queue="post"), new_id())
    async with database.read() as connection:
        assert list((await connection.execute(sa.select(Queue.name))).scalars()) == ["post"]
