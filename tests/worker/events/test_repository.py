"""Documents publish what happens to them: with the commit or not at all, whoever changes them, one event per row."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from worker import JobContext, job, testing
from worker.accounts import actions as accounts
from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.errors import BulkSkipsEvents
from worker.events.models import OutboxRow
from worker.events.publishing import act_as
from worker.events.repository import GenericRepository
from worker.jobs.models import Queue

ADMIN = Actor("ada", "admin")


class Invoice(DeclarativeBase):
    """A registry of its own: the desk's schema must not learn of it."""


class Bill(Invoice):
    __tablename__ = "test_bills"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]
    amount: Mapped[int] = mapped_column(default=0)
    api_token: Mapped[str] = mapped_column(default="s3cret")
    pin: Mapped[str] = mapped_column(default="1234", info={"secret": True})
    submitted_at: Mapped[datetime | None]

    def submit(self) -> None:
        if self.submitted_at:
            raise ValueError("was submitted before")
        self.submitted_at = utc_now().replace(tzinfo=None)


class Bills(GenericRepository[Bill]):
    model_type = Bill


@pytest.fixture
async def database(database_url: str):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Invoice.metadata.create_all)
    yield database
    await database.close()


async def told(database: Database) -> list[dict[str, Any]]:
    async with database.read() as connection:
        rows = await connection.scalars(sa.select(OutboxRow.events).order_by(OutboxRow.id))
        return [event for events in rows for event in events if "doctype" in event]


async def kinds(database: Database) -> list[tuple[str, str]]:
    return [(event["event_type"], event["doc_id"]) for event in await told(database)]


async def test_a_document_is_told_with_its_key_and_without_its_secrets(database) -> None:
    async with database.transaction() as session:
        act_as(session.sync_session, "ada")
        await Bills(session=session).add(Bill(number="A-1", amount=7))
    [event] = await told(database)
    assert (event["event_type"], event["doctype"], event["doc_id"], event["user_id"]) == (
        "doc.created", "Bill", "1", "ada",
    )  # fmt: skip
    assert event["data"]["doc"] == {"id": 1, "number": "A-1", "amount": 7, "submitted_at": None}


async def test_a_change_names_what_changed_and_no_change_is_no_event(database) -> None:
    async with database.transaction() as session:
        await Bills(session=session).add(Bill(number="A-1"))
    async with database.transaction() as session:
        bill = await Bills(session=session).get(1)
        bill.number, bill.api_token = "A-2", "other"
    async with database.transaction() as session:
        bill = await Bills(session=session).get(1)
        bill.number = "A-2"
    async with database.transaction() as session:
        bill = await Bills(session=session).get(1)
        bill.api_token = "again"
    [_, event] = await told(database)
    assert (event["event_type"], event["data"]["changed"]) == ("doc.updated", ["number"])
    assert event["data"]["doc"]["number"] == "A-2"


async def test_what_is_undone_was_not_told(database) -> None:
    with pytest.raises(RuntimeError, match="no"):  # noqa: PT012 # the transaction is what raises
        async with database.transaction() as session:
            await Bills(session=session).add(Bill(number="A-1"))
            raise RuntimeError("no")
    assert await told(database) == []


async def test_what_the_last_flush_writes_is_told_too(database) -> None:
    async with database.transaction() as session:
        Bills(session=session)
        session.add(Bill(number="A-1"))
    assert await kinds(database) == [("doc.created", "1")]


async def test_bulk_methods_tell_each_row(database) -> None:
    async with database.transaction() as session:
        await Bills(session=session).add_many([Bill(id=n, number=f"A-{n}") for n in range(1, 6)])
    async with database.transaction() as session:
        await Bills(session=session).update_many([Bill(id=n, number=f"B-{n}") for n in (1, 2)])
    async with database.transaction() as session:
        await Bills(session=session).upsert_many([Bill(id=2, number="C-2"), Bill(id=9, number="C-9")])
    async with database.transaction() as session:
        await Bills(session=session).delete_many([3, 4])
    async with database.transaction() as session:
        await Bills(session=session).delete_where(Bill.number.like("B-%"))
    assert await kinds(database) == [
        *(("doc.created", str(n)) for n in range(1, 6)),
        ("doc.updated", "1"), ("doc.updated", "2"),
        ("doc.updated", "2"), ("doc.created", "9"),
        ("doc.deleted", "3"), ("doc.deleted", "4"),
        ("doc.deleted", "1"),
    ]  # fmt: skip
    async with database.read() as connection:
        assert list(await connection.scalars(sa.select(Bill.id).order_by(Bill.id))) == [2, 5, 9]


@pytest.mark.parametrize(
    "statement",
    [
        sa.update(Bill).values(number="x"),
        sa.delete(Bill),
        sa.insert(Bill).values(number="x", amount=1, api_token="", pin=""),
    ],
    ids=["update", "delete", "insert"],
)
async def test_a_statement_that_would_skip_the_events_is_refused(database, statement) -> None:
    async with database.session() as session:
        Bills(session=session)
        with pytest.raises(BulkSkipsEvents, match="of Bill would skip its events"):
            await session.execute(statement)


async def test_hooks_may_be_overridden(database) -> None:
    class Quiet(Bills):
        fields = ("number",)

        def after_insert(self, session, item) -> None:
            if item.amount > 10:
                super().after_insert(session, item)

    async with database.transaction() as session:
        bills = Quiet(session=session)
        await bills.add(Bill(number="small", amount=1))
        await bills.add(Bill(number="large", amount=11))
    [event] = await told(database)
    assert event["data"]["doc"] == {"number": "large"}


async def test_submitting_tells_it_and_a_refusal_tells_nothing(database) -> None:
    async with database.transaction() as session:
        await Bills(session=session).add(Bill(number="A-1"))
    async with database.transaction() as session:
        bills = Bills(session=session)
        await bills.submit(await bills.get(1))
    with pytest.raises(ValueError, match="was submitted before"):  # noqa: PT012 # the transaction is what raises
        async with database.transaction() as session:
            bills = Bills(session=session)
            await bills.submit(await bills.get(1))
    async with database.session() as session:
        with pytest.raises(TypeError, match=r"Bill has no cancel\(\)"):
            await Bills(session=session).cancel(Bill(number="x"))
    assert [kind for kind, _ in await kinds(database)] == ["doc.created", "doc.updated", "doc.submitted"]


async def test_a_large_document_is_told_without_its_fields(database) -> None:
    async with database.transaction() as session:
        await Bills(session=session).add(Bill(number="x" * 100_000))
    [event] = await told(database)
    assert event["data"]["doc"] is None


async def test_people_are_told_by_whom_without_anything_secret(database) -> None:
    await accounts.add_user(database, "eve", role="admin", password="correct horse battery", actor=ADMIN)
    user = await accounts.add_user(
        database, "bob", role="viewer", password="correct horse battery", actor=ADMIN
    )
    async with database.transaction() as session:
        await accounts.set_role(session, user.id, "operator", actor=ADMIN)
    _, created, updated = await told(database)
    assert (created["event_type"], created["doctype"], created["user_id"]) == ("doc.created", "User", "ada")
    assert set(created["data"]["doc"]) == {"name", "role", "service", "disabled_at"}
    assert (updated["event_type"], updated["data"]["changed"], updated["data"]["doc"]["role"]) == (
        "doc.updated", ["role"], "operator",
    )  # fmt: skip


@job(retry=0)
async def opens_a_queue(ctx: JobContext, fail: bool = False) -> None:
    async with ctx.repository(Queue) as queues:
        await queues.add(Queue(name=f"q{new_id().hex[:8]}", created_at=utc_now()))
        if fail:
            raise RuntimeError("after all not")


async def test_a_jobs_repository_publishes_with_the_jobs_fence(database_url: str) -> None:
    async with testing.desk(opens_a_queue, environ={"DATABASE_URL": database_url}) as desk:
        assert (await desk.run(opens_a_queue, fail=True)).status == "failed"
        assert await told(desk.engine.database) == []
        assert (await desk.run(opens_a_queue)).status == "success"
        [event] = await told(desk.engine.database)
        assert (event["event_type"], event["doctype"]) == ("doc.created", "Queue")
