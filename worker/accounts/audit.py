"""The audit log: entries in the action's own transaction, sealed afterwards as a chain of hashes."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.accounts.actor import Actor
from worker.accounts.models import AuditEntry
from worker.db.base import utc_now
from worker.db.session import Database

SEAL_LOCK = 0x6D5F7365616C
"""PostgreSQL's advisory lock under which one clerk at a time seals."""

SEAL_BATCH = 1000

HIDDEN_KEYS = ("password", "secret", "token", "hash", "authorization", "cookie")


async def audit(
    session: AsyncSession,
    actor: Actor,
    action: str,
    object_type: str = "",
    object_id: object = "",
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    denied: bool = False,
) -> None:
    """Adds an entry to the session's transaction: the action commits with it or not at all.

    `action` is `noun.verb` ("job.retry"); `before` and `after` hold the fields that changed, as JSON values.
    """
    session.sync_session.info["acting"] = actor.name  # of the events of documents that this changes
    session.add(
        AuditEntry(
            at=utc_now(),
            actor=actor.name[:200],
            actor_role=actor.role[:10],
            via=actor.via,
            ip=actor.ip[:64],
            request_id=actor.request_id[:64],
            action=action[:60],
            object_type=object_type[:40],
            object_id=str(object_id)[:200],
            denied=denied,
            before=_without_secrets(before),
            after=_without_secrets(after),
        )
    )


async def audit_denied(
    database: Database, actor: Actor, action: str, object_type: str = "", object_id: object = "", **facts: Any
) -> None:
    """Records an attempt that was refused, in a transaction of its own."""
    async with database.transaction() as session:
        await audit(session, actor, action, object_type, object_id, after=facts or None, denied=True)


# The chain: seal n is "n:" and SHA-256 of (seal n-1, entry n). What was sealed cannot change, vanish or be slipped in.


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found. `broken_at` names the first place of the chain that does not fit."""

    sealed: int
    unsealed: int
    broken_at: str | None = None

    @property
    def intact(self) -> bool:
        return self.broken_at is None


async def seal(database: Database, *, limit: int = SEAL_BATCH, settle_s: float = 2.0) -> int:
    """Seals up to `limit` entries that are at least `settle_s` old; answers how many. Any number of clerks may."""
    async with database.transaction() as session:
        if database.dialect == "postgresql":
            await session.execute(sa.select(sa.func.pg_advisory_xact_lock(SEAL_LOCK)))
        previous = await session.scalar(sa.select(sa.func.max(AuditEntry.seal))) or ""
        found = await session.execute(
            sa.select(*_COLUMNS)
            .where(AuditEntry.seal.is_(None), AuditEntry.at <= utc_now() - timedelta(seconds=settle_s))
            .order_by(AuditEntry.id)
            .limit(limit)
        )
        links = []
        for entry in found:
            previous = next_seal(previous, entry)
            links.append({"entry_id": entry.id, "new_seal": previous})
        if links:
            connection = await session.connection()
            await connection.execute(_SET_SEAL, links)
    return len(links)


async def verify(database: Database) -> Verdict:
    """Walks the whole chain, in pieces, and says where it first breaks."""
    previous, sealed = "", 0
    async with database.read() as connection:
        unsealed = await connection.scalar(
            sa.select(sa.func.count()).select_from(AuditEntry).where(AuditEntry.seal.is_(None))
        )
        while True:
            piece = (
                await connection.execute(
                    sa.select(*_COLUMNS, AuditEntry.seal)
                    .where(AuditEntry.seal > previous)
                    .order_by(AuditEntry.seal)
                    .limit(1000)
                )
            ).all()
            for entry in piece:
                if entry.seal != next_seal(previous, entry):
                    return Verdict(sealed, unsealed or 0, broken_at=f"entry {entry.id}, place {sealed + 1}")
                previous, sealed = entry.seal, sealed + 1
            if not piece:
                return Verdict(sealed, unsealed or 0)


def next_seal(previous: str, entry: sa.Row[Any]) -> str:
    """The seal of the entry that follows the one sealed `previous` ("" for the first). Sorts in chain order."""
    place = int(previous.partition(":")[0] or 0) + 1
    facts = {column.key: getattr(entry, column.key) for column in _COLUMNS}
    text = json.dumps([previous, facts], default=_as_text, sort_keys=True, ensure_ascii=True)
    digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"{place:015d}:{digest}"


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return str(value)


def _without_secrets(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if facts is None:
        return None
    return {key: _masked(key, value) for key, value in facts.items()}


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return "***" if "$secret" in value else _without_secrets(value)
    if isinstance(value, list | tuple):
        return [_masked(key, item) for item in value]
    if isinstance(value, str | bytes) and any(word in key.lower() for word in HIDDEN_KEYS):
        return "***"
    return value if isinstance(value, str | int | float | bool | None) else _as_text(value)


_COLUMNS = tuple(column for column in AuditEntry.__table__.columns if column.key != "seal")
_SET_SEAL = (
    sa.update(AuditEntry)
    .where(AuditEntry.id == sa.bindparam("entry_id"), AuditEntry.seal.is_(None))
    .values(seal=sa.bindparam("new_seal"))
)
