"""The audit log: in the action's transaction, without secrets, append-only, sealed as a chain (case 71)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.worker.accounts.conftest import CONSOLE, entries
from worker.accounts import actions
from worker.accounts.actor import Actor
from worker.accounts.audit import audit, audit_denied, next_seal, seal, verify
from worker.accounts.models import AuditEntry, User
from worker.db.session import Database

EVE = Actor("eve", "viewer", "api", "192.0.2.9", "request-1")


async def test_an_entry_says_who_from_where_did_what_to_what(database: Database) -> None:
    async with database.transaction() as session:
        await audit(
            session, EVE, "job.retry", "job", "j1", before={"status": "failed"}, after={"status": "queued"}
        )
    (entry,) = await entries(database)
    assert (entry.actor, entry.actor_role, entry.via, entry.ip, entry.request_id) == (
        "eve", "viewer", "api", "192.0.2.9", "request-1",
    )  # fmt: skip
    assert (entry.action, entry.object_type, entry.object_id, entry.denied) == (
        "job.retry",
        "job",
        "j1",
        False,
    )
    assert (entry.before, entry.after) == ({"status": "failed"}, {"status": "queued"})
    assert entry.at.tzinfo == UTC


async def test_an_entry_commits_with_its_action_or_not_at_all(database: Database) -> None:
    async with database.session() as session:
        await audit(session, EVE, "job.retry")
        await session.flush()
        await session.rollback()
    assert await entries(database) == []


async def test_an_action_whose_entry_cannot_be_written_does_not_happen(database: Database, ada: User) -> None:
    """The database refuses the entry; so the person is not added either."""
    async with database.transaction() as session:
        await session.execute(sa.text("ALTER TABLE audit_entries RENAME COLUMN action TO gone"))
    with pytest.raises(DBAPIError):
        await actions.add_user(database, "eve", role="admin", password="some long phrase", actor=CONSOLE)
    async with database.session() as session:
        assert await session.scalar(sa.select(User.id).where(User.name == "eve")) is None


async def test_a_denied_attempt_is_recorded_by_itself(database: Database) -> None:
    await audit_denied(database, EVE, "retry_job", "request", "POST /job-logs/1/retry", needs="operator")
    (entry,) = await entries(database, denied=True)
    assert (entry.actor, entry.after) == ("eve", {"needs": "operator"})


async def test_holds_no_secret_whatever_an_action_hands_it(database: Database) -> None:
    facts = {
        "password": "hunter2", "api_token": "mdesk_x", "webhook_secret": "whsec_x", "Authorization": "Bearer x",
        "args": {"key": {"$secret": "gAAAA"}, "list": [{"password_hash": "argon"}], "n": 1},
        "at": datetime(2026, 1, 1, tzinfo=UTC), "token_count": 3,
    }  # fmt: skip
    async with database.transaction() as session:
        await audit(session, EVE, "x", after=facts)
    (entry,) = await entries(database)
    assert entry.after == {
        "password": "***", "api_token": "***", "webhook_secret": "***", "Authorization": "***",
        "args": {"key": "***", "list": [{"password_hash": "***"}], "n": 1},
        "at": "2026-01-01T00:00:00.000000+00:00", "token_count": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'somebody else'",
        "UPDATE audit_entries SET before = NULL, denied = true",
        "DELETE FROM audit_entries",
    ],
)
async def test_the_database_refuses_to_change_or_delete_an_entry(database: Database, statement: str) -> None:
    await _write(database, 2)
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.transaction() as session:
            await session.execute(sa.text(statement))
    assert len(await entries(database)) == 2


async def test_a_seal_is_set_once(database: Database) -> None:
    await _write(database, 1)
    assert await seal(database, settle_s=0) == 1
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.transaction() as session:
            await session.execute(sa.text("UPDATE audit_entries SET seal = 'another'"))


async def test_seals_in_batches_and_the_chain_verifies(database: Database) -> None:
    await _write(database, 7)
    assert [await seal(database, limit=3, settle_s=0) for _ in range(4)] == [3, 3, 1, 0]
    verdict = await verify(database)
    assert (verdict.sealed, verdict.unsealed, verdict.intact) == (7, 0, True)


async def test_waits_until_transactions_of_the_same_moment_have_settled(database: Database) -> None:
    await _write(database, 2)
    assert await seal(database, settle_s=60) == 0
    assert (await verify(database)).unsealed == 2


async def test_two_clerks_at_once_seal_one_chain(database: Database) -> None:
    await _write(database, 40)
    done = await asyncio.gather(*(seal(database, limit=10, settle_s=0) for _ in range(4)))
    assert sum(done) == 40
    assert (await verify(database)).intact


async def test_an_entry_that_commits_late_is_sealed_late(database: Database) -> None:
    await _write(database, 3)
    await seal(database, settle_s=0)
    early = await entries(database)
    async with database.transaction() as session:
        session.add(AuditEntry(id=_before(early[0].id), at=early[0].at, actor="late", action="x"))
    assert await seal(database, settle_s=0) == 1
    assert (await verify(database)).intact


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE audit_entries SET actor = 'somebody else' WHERE seal LIKE '000000000000002:%'",
        "UPDATE audit_entries SET after = NULL WHERE seal LIKE '000000000000002:%'",
        "DELETE FROM audit_entries WHERE seal LIKE '000000000000002:%'",
        "DELETE FROM audit_entries WHERE seal LIKE '000000000000001:%'",
    ],
)
async def test_who_gets_round_the_trigger_breaks_the_chain(database: Database, tamper: str) -> None:
    await _write(database, 5)
    await seal(database, settle_s=0)
    async with database.transaction() as session:
        for statement in _without_trigger(database.dialect):
            await session.execute(sa.text(statement))
        await session.execute(sa.text(tamper))
    verdict = await verify(database)
    assert not verdict.intact
    assert verdict.sealed < 5


async def test_who_also_writes_a_fitting_seal_breaks_the_chain_at_the_next_entry(database: Database) -> None:
    await _write(database, 3)
    await seal(database, settle_s=0)
    first, second, _ = await entries(database)
    forged = next_seal(first.seal, SimpleNamespace(**{**second._mapping, "actor": "somebody else"}))
    async with database.transaction() as session:
        for statement in _without_trigger(database.dialect):
            await session.execute(sa.text(statement))
        await session.execute(
            sa.update(AuditEntry).where(AuditEntry.id == second.id).values(actor="somebody else", seal=forged)
        )
    verdict = await verify(database)
    assert (verdict.intact, verdict.sealed) == (False, 2)


async def _write(database: Database, many: int) -> None:
    for n in range(many):
        async with database.transaction() as session:
            await audit(session, EVE, "job.retry", "job", n, after={"n": n, "float": 1.5, "text": "zażółć"})


def _before(id_: object) -> object:
    from uuid import UUID

    return UUID(int=UUID(str(id_)).int - 1)


def _without_trigger(dialect: str) -> list[str]:
    if dialect == "postgresql":
        return ["ALTER TABLE audit_entries DISABLE TRIGGER USER"]
    return ["DROP TRIGGER audit_entries_append_only", "DROP TRIGGER audit_entries_no_delete"]
