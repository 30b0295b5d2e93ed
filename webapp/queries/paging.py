"""Keyset paging: a cursor names the row to go on from, so page 10,000 costs what page 1 costs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import sqlalchemy as sa

from worker.errors import Invalid

T = TypeVar("T")
U = TypeVar("U")
Direction = Literal["older", "newer", "from"]
DIRECTIONS: dict[str, Direction] = {"older": "older", "newer": "newer", "from": "from"}


@dataclass(frozen=True, slots=True)
class Cursor:
    """Go on `older` or `newer` than this row, or begin `from` it (the row itself included)."""

    direction: Direction
    id: UUID
    value: str = ""
    """The sort column's value at that row, as text; empty when the list is sorted by id."""

    def __str__(self) -> str:
        return f"{self.direction}~{self.id.hex}" + (f"~{self.value}" if self.value else "")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Reads what `str` wrote.

        Raises:
            Invalid: when it is not one of our cursors.
        """
        word, _, rest = text.partition("~")
        key, _, value = rest.partition("~")
        try:
            return cls(DIRECTIONS[word], UUID(key), value)
        except (KeyError, ValueError):
            raise Invalid({"cursor": "is not one that this list gave; begin again without it"}) from None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page, in the list's order, with the cursors that lead on from its ends."""

    items: Sequence[T]
    next: str | None = None
    """Towards older rows."""
    previous: str | None = None
    """Towards newer rows."""
    searched_back_to: datetime | None = None
    """Set when a search without an index stopped here for now: `next` goes on from there."""
    begin: str | None = None
    """From its first row, that one included: leads to the same rows again, whatever came since."""

    def map(self, change: Callable[[T], U]) -> Page[U]:
        items = [change(item) for item in self.items]
        return Page(items, self.next, self.previous, self.searched_back_to, self.begin)


@dataclass(frozen=True, slots=True)
class Order:
    """Newest (or longest) first by `column`, ties broken by `id`; `column` is None when id alone decides."""

    id: Any
    """The column of ids."""
    column: Any = None
    parse: Callable[[str], Any] = str
    """Turns a cursor's value into what the column compares with; raises ValueError."""

    def by(self, *, ascending: bool = False) -> list[sa.ColumnElement[Any]]:
        keys = [self.id] if self.column is None else [self.column, self.id]
        return [key.asc() if ascending else key.desc() for key in keys]

    def beyond(self, cursor: Cursor) -> sa.ColumnElement[bool]:
        """The rows on the cursor's side."""
        if self.column is None:
            return _compare(cursor.direction, self.id, cursor.id)
        try:
            value = self.parse(cursor.value)
        except ValueError:
            raise Invalid({"cursor": "belongs to another order; begin again without it"}) from None
        first = self.column < value if cursor.direction != "newer" else self.column > value
        return sa.or_(first, sa.and_(self.column == value, _compare(cursor.direction, self.id, cursor.id)))


def cut(
    rows: Sequence[T], limit: int, cursor: Cursor | None, key: Callable[[T], tuple[UUID, str]]
) -> tuple[Sequence[T], str | None, str | None]:
    """Cuts limit + 1 fetched rows to a page in list order, and names its two ends where more lies beyond."""
    more = len(rows) > limit
    rows = rows[:limit]
    going_back = cursor is not None and cursor.direction == "newer"
    if going_back:
        rows = list(reversed(rows))
    if not rows:
        return rows, None, None
    older = str(Cursor("older", *key(rows[-1]))) if more or going_back else None
    newer = str(Cursor("newer", *key(rows[0]))) if (more if going_back else cursor is not None) else None
    return rows, older, newer


def _compare(direction: Direction, column: Any, value: UUID) -> sa.ColumnElement[bool]:
    compare = {"older": operator.lt, "newer": operator.gt, "from": operator.le}[direction]
    found: sa.ColumnElement[bool] = compare(column, value)
    return found
