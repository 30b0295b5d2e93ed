"""Documents that publish: what a flush inserts, changes or deletes of certain models is told with the same commit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session

from worker.db.session import record
from worker.errors import BulkSkipsEvents
from worker.events.types import DocCreated, DocDeleted, DocEvent, DocUpdated

Model = TypeVar("Model", bound=type)

MAX_DOC_BYTES = 48 * 1024
"""A document that is larger is told without its fields."""
SECRETIVE = re.compile(r"password|passwd|secret|token|hash|api_?key|private", re.IGNORECASE)
"""Columns of such names are never told, nor those with `info={"secret": True}`."""


class Publisher:
    """How documents of one model are told. Its three `after_…` methods run inside the flush: they must not query."""

    def __init__(self, model: type, fields: Sequence[str] | None = None, deleted: str | None = None) -> None:
        self.model = model
        self.doctype = model.__name__
        self.fields = frozenset(fields) if fields is not None else open_fields(model)
        self.deleted = deleted
        """The column that is set when a document is deleted but its row stays."""

    def after_insert(self, session: Session, item: Any) -> None:
        tell(session, self.event(DocCreated, item))

    def after_update(self, session: Session, item: Any, changed: dict[str, Any]) -> None:
        """`changed` maps each told column that changed to its value before."""
        if self.deleted and changed.get(self.deleted, item) is None:
            tell(session, self.event(DocDeleted, item))
        elif changed:
            tell(session, self.event(DocUpdated, item, changed=sorted(changed)))

    def after_delete(self, session: Session, item: Any) -> None:
        tell(session, self.event(DocDeleted, item))

    def event(self, kind: type[DocEvent], item: Any, **data: Any) -> DocEvent:
        """The event of a document: its told fields as `data.doc`, and what else is given."""
        return kind(
            event_type=kind.TYPE,
            doctype=self.doctype,
            doc_id=doc_id(item),
            data={"doc": self.doc(item), **data},
        )

    def doc(self, item: Any) -> dict[str, Any] | None:
        """The told fields as JSON values; None when they are too large to carry around."""
        found = {name: item.__dict__.get(name) for name in sorted(self.fields)}
        text = json.dumps(found, default=str)
        return json.loads(text) if len(text) <= MAX_DOC_BYTES else None


_ALWAYS: dict[type, Publisher] = {}


def publishes(*fields: str, deleted: str | None = None) -> Callable[[Model], Model]:
    """Class decorator: in every session of this process documents of this model are told, with these fields of theirs."""

    def register(model: Model) -> Model:
        _ALWAYS[model] = Publisher(model, fields, deleted)
        return model

    return register


def publish_in(session: Session, publisher: Publisher) -> None:
    """In this session documents of the publisher's model are told by it."""
    session.info.setdefault("publishers", {})[publisher.model] = publisher


def act_as(session: Session, user: str | None) -> None:
    """Names who stands behind what this session changes."""
    session.info["acting"] = user


def tell(session: Session, happened: DocEvent) -> None:
    """Records an event of a document; who acted is filled in when the transaction commits."""
    record(session, happened.as_json())


def open_fields(model: type) -> frozenset[str]:
    """The columns of a model that may be told."""
    columns: Any = sa.inspect(model).column_attrs
    return frozenset(
        attribute.key
        for attribute in columns
        if not SECRETIVE.search(attribute.key) and not any(c.info.get("secret") for c in attribute.columns)
    )


def doc_id(item: Any) -> str:
    """The primary key as text; the parts of a composite one joined by commas."""
    return ",".join(str(part) for part in sa.inspect(item).mapper.primary_key_from_instance(item))


def _publisher_of(session: Session, item: Any) -> Publisher | None:
    own: dict[type, Publisher] = session.info.get("publishers", {})
    for kind in type(item).__mro__:
        if (found := own.get(kind) or _ALWAYS.get(kind)) is not None:
            return found
    return None


@event.listens_for(Session, "before_flush")
def _note_changes(session: Session, _context: Any, _instances: Any) -> None:
    """What changed is only known before the flush, new keys only after it."""
    noted: list[tuple[Publisher, str, Any, dict[str, Any]]] = []
    for wish, items in (("insert", session.new), ("update", session.dirty), ("delete", session.deleted)):
        for item in items:
            publisher = _publisher_of(session, item)
            if publisher is None or (wish == "update" and not session.is_modified(item)):
                continue
            noted.append((publisher, wish, item, _before(publisher, item) if wish == "update" else {}))
    session.info["noted"] = noted


@event.listens_for(Session, "after_flush")
def _tell_changes(session: Session, _context: Any) -> None:
    for publisher, wish, item, before in session.info.pop("noted", ()):
        if wish == "insert":
            publisher.after_insert(session, item)
        elif wish == "delete":
            publisher.after_delete(session, item)
        else:
            publisher.after_update(session, item, before)


@event.listens_for(Session, "do_orm_execute")
def _refuse_bulk(state: ORMExecuteState) -> None:
    """A statement that changes many rows at once passes no flush, so its events would be missing."""
    if not (state.is_insert or state.is_update or state.is_delete) or state.bind_mapper is None:
        return
    own: dict[type, Publisher] = state.session.info.get("publishers", {})
    if state.bind_mapper.class_ in own:
        verb = "insert" if state.is_insert else "update" if state.is_update else "delete"
        raise BulkSkipsEvents(verb=verb, doctype=state.bind_mapper.class_.__name__)


def _before(publisher: Publisher, item: Any) -> dict[str, Any]:
    """The told columns that this flush changes, and their values before; None where that is not known."""
    state = sa.inspect(item)
    histories = {name: state.attrs[name].history for name in publisher.fields}
    return {
        name: history.deleted[0] if history.deleted else None
        for name, history in histories.items()
        if history.has_changes()
    }
