"""What every table shares: the declarative base, ids, UTC times, the JSON type."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from advanced_alchemy.base import CommonTableAttributes, create_registry
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from uuid_utils.compat import uuid7


class Json(sa.JSON):
    """JSON that SQLite keeps as TEXT: its JSON column has numeric affinity and would round big numbers."""


@compiles(Json, "sqlite")
def _as_text(_type: Json, _compiler: Any, **_: Any) -> str:
    return "TEXT"


JSON = Json(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; Python's None is SQL's NULL."""

Time = DateTimeUTC(timezone=True)
"""An instant; naive values are refused, UTC comes back."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


registry = create_registry({dict[str, Any]: JSON, list[Any]: JSON, datetime: Time, UUID: sa.Uuid()})
registry.metadata = metadata


class Base(CommonTableAttributes, DeclarativeBase):
    """The parent of all models. Times are aware and UTC; ids are UUIDv7 (RFC 9562), so they sort by age."""

    __abstract__ = True
    registry = registry
    metadata = metadata


def new_id() -> UUID:
    """A UUIDv7: unique over all processes, sorted by the millisecond it was made in."""
    return uuid7()


def utc_now() -> datetime:
    """The wall clock of this process. Rules never call it: they take the time as an argument."""
    return datetime.now(UTC)


def as_stored(at: datetime, dialect: str) -> str:
    """`at` as text that compares equal to the column's own form when it travels inside a JSON batch."""
    at = at.astimezone(UTC)
    if dialect == "sqlite":
        return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return at.isoformat(timespec="microseconds")
