"""GenericRepository: Advanced Alchemy's repository, whose documents publish what happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.repository.typing import ModelT
from advanced_alchemy.utils.dataclass import Empty
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from worker.events.publishing import Publisher, publish_in, tell
from worker.events.types import DocCancelled, DocEvent, DocSubmitted


class GenericRepository(SQLAlchemyAsyncRepository[ModelT]):
    """Adds, changes and deletes documents; each is told as `doc.created`, `doc.updated` or `doc.deleted` when it commits.

        class Invoices(GenericRepository[Invoice]):
            model_type = Invoice
            fields = ("number", "amount")               # told of each; without it all that look harmless

            def after_insert(self, session, item):      # instead of doc.created, or beside it
                super().after_insert(session, item)

    In this session changes of the model that the repository did not make itself are told too. Methods that would
    change many rows by one statement change them one by one.
    """

    fields: Sequence[str] | None = None

    def __init__(self, *, session: AsyncSession, **options: Any) -> None:
        super().__init__(session=session, **options)
        self._publisher = _Publisher(self)
        self._sync_session = session.sync_session
        publish_in(self._sync_session, self._publisher)

    # What is told; they run inside the flush, where nothing can be queried

    def after_insert(self, session: Session, item: ModelT) -> None:
        Publisher.after_insert(self._publisher, session, item)

    def after_update(self, session: Session, item: ModelT, changed: dict[str, Any]) -> None:
        """`changed` maps each told column that changed to its value before."""
        Publisher.after_update(self._publisher, session, item, changed)

    def after_delete(self, session: Session, item: ModelT) -> None:
        Publisher.after_delete(self._publisher, session, item)

    # Documents that are submitted and cancelled

    async def submit(self, item: ModelT) -> ModelT:
        """Calls the document's own `submit()`, stores it, and tells `doc.submitted`.

        Raises:
            TypeError: the model has no `submit()`.
        """
        return await self._act(item, "submit", DocSubmitted)

    async def cancel(self, item: ModelT) -> ModelT:
        """Calls the document's own `cancel()`, stores it, and tells `doc.cancelled`.

        Raises:
            TypeError: the model has no `cancel()`.
        """
        return await self._act(item, "cancel", DocCancelled)

    # One by one what Advanced Alchemy does by one statement

    async def update_many(self, data: list[ModelT], **options: Any) -> list[ModelT]:
        return [await self.update(item, **_row_options(options)) for item in data]

    async def upsert_many(self, data: list[ModelT], **options: Any) -> list[ModelT]:
        given = _row_options(options) | {
            name: value for name, value in options.items() if name == "match_fields" and value is not None
        }
        return [await self.upsert(item, **given) for item in data]

    async def delete_many(self, item_ids: list[Any], **options: Any) -> Sequence[ModelT]:
        named = {k: v for k, v in options.items() if k == "id_attribute" and v is not None}
        return [await self.delete(item_id, **_row_options(options), **named) for item_id in item_ids]

    async def delete_where(self, *filters: Any, **options: Any) -> Sequence[ModelT]:
        row_options = _row_options(options)
        plain = {
            name: value for name, value in options.items() if name not in (*_ROW_OPTIONS, "sanity_check")
        }
        found = await self.get_many(*filters, **plain)
        for item in found:
            await self.session.delete(item)
        await self._flush_or_commit(auto_commit=row_options.get("auto_commit"))
        return found

    async def _act(self, item: ModelT, verb: str, kind: type[DocEvent]) -> ModelT:
        method = getattr(item, verb, None)
        if not callable(method):
            raise TypeError(f"{type(item).__name__} has no {verb}()")
        item = await self._attach_to_session(item, strategy="merge") if item not in self.session else item
        getattr(item, verb)()
        await self.session.flush()
        tell(self._sync_session, self._publisher.event(kind, item))
        await self._flush_or_commit(auto_commit=None)
        return item


class _Publisher(Publisher):
    """Asks the repository, whose methods may be overridden."""

    def __init__(self, repository: GenericRepository[Any]) -> None:
        super().__init__(repository.model_type, repository.fields)
        self.after_insert = repository.after_insert  # type: ignore[method-assign]
        self.after_update = repository.after_update  # type: ignore[method-assign]
        self.after_delete = repository.after_delete  # type: ignore[method-assign]


_ROW_OPTIONS = ("auto_commit", "auto_expunge", "error_messages")


def _row_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _ROW_OPTIONS if options.get(name, Empty) is not Empty}


def repository_type(model: type) -> type[GenericRepository[Any]]:
    """The repository of a model; a repository is its own."""
    if issubclass(model, GenericRepository):
        return model
    made: type[GenericRepository[Any]] = _made(model)  # type: ignore[arg-type] # a class is hashable
    return made


@lru_cache(maxsize=256)
def _made(model: Any) -> type[GenericRepository[Any]]:
    return type(f"{model.__name__}Repository", (GenericRepository,), {"model_type": model})
