"""What every table shares: the declarative base, ids, UTC times, the JSON type."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, registry
from uuid_utils.compat import uuid7


class Json(sa.JSON):
    """JSON that SQLite keeps as TEXT: its JSON column has numeric affinity and would round big numbers."""


@compiles(Json, "sqlite")
def _as_text(_type: Json, _compiler: Any, **_: Any) -> str:
    return "TEXT"


JSON = Json(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; Python's None is SQL's NULL."""


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware instant. It is stored in UTC and comes back in UTC; SQLite keeps no zone, so it is put back."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Time = UtcDateTime()

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Base(DeclarativeBase):
    """The parent of all models. Times are aware and UTC; ids are UUIDv7 (RFC 9562), so they sort by age.

    It is SQLAlchemy's own: advanced-alchemy's bases import a web framework, which every worker would pay for.
    """

    registry = registry(
        metadata=metadata,
        type_annotation_map={dict[str, Any]: JSON, list[Any]: JSON, datetime: Time, UUID: sa.Uuid()},
    )


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
