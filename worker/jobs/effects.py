"""`ctx.once(key)`: what must not happen twice, although the job may run twice."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import utc_now
from worker.errors import EffectInDoubt
from worker.joblogs.models import Effect

if TYPE_CHECKING:
    from worker.jobs.context import JobContext

OnDoubt = Literal["raise", "run"]


class Once:
    """Whether a block still has to be done; it counts as done when it ends without an exception.

    `first` (and the object's truth) says whether it was not done before; `value`, set in the block, is kept and found
    there by later attempts.
    """

    def __init__(self, context: JobContext, key: str, on_doubt: OnDoubt | None) -> None:
        if not 0 < len(key) <= 180:
            raise ValueError(f"once({key[:40]!r}): a key has from 1 to 180 characters")
        self.key = key
        self.first = False
        self.value: Any = None
        self._context = context
        self._on_doubt = on_doubt
        self._stack = AsyncExitStack()
        self._session: AsyncSession | None = None

    def __bool__(self) -> bool:
        return self.first

    @property
    def session(self) -> AsyncSession:
        """The session whose commit also keeps the key. There is none with `on_doubt`."""
        if self._session is None:
            raise RuntimeError(
                "once(key, on_doubt=…) is for effects outside the database: use ctx.session() there"
            )
        return self._session

    async def did_not_happen(self) -> None:
        """Takes the started mark away: the block knows that its effect did not happen and may be tried again."""
        async with self._context.session() as session:
            await session.execute(sa.delete(Effect).where(*self._row(), Effect.state == "started"))

    async def __aenter__(self) -> Self:
        if self._on_doubt is None:
            self._session = await self._stack.enter_async_context(self._context.session())
            self.first = await self._find(self._session) is None
        else:
            async with self._context.session() as session:
                await self._start(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.first:
            await (self._keep() if self._session is not None else self._finish())
        await self._stack.__aexit__(kind, error, trace)

    def __enter__(self) -> Self:
        """For plain functions, in their thread."""
        return self._context.run(self.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.run(self.__aexit__(kind, error, trace))

    async def _find(self, session: AsyncSession) -> Effect | None:
        found = await session.scalar(sa.select(Effect).where(*self._row()))
        if found is not None:
            self.value = found.value
        return found

    async def _start(self, session: AsyncSession) -> None:
        """Writes the mark before the effect, or finds out what became of an earlier one."""
        found = await self._find(session)
        if found is None:
            session.add(self._effect("started"))
        elif found.state == "started":
            if self._on_doubt != "run":
                raise EffectInDoubt(key=self.key, job_id=self._context.job_id)
            found.epoch = self._context.epoch
        self.first = found is None or found.state == "started"

    async def _keep(self) -> None:
        """The key becomes part of the block's own transaction, which commits next."""
        effect = self._effect("done")
        effect.value = self.value
        self.session.add(effect)

    async def _finish(self) -> None:
        """The effect has happened, whoever holds the job by now; only a newer execution's mark is left alone."""
        async with self._context.engine.database.transaction() as session:
            await session.execute(
                sa.update(Effect)
                .where(*self._row(), Effect.epoch == self._context.epoch)
                .values(state="done", value=self.value, at=utc_now())
            )

    def _row(self) -> tuple[sa.ColumnElement[bool], ...]:
        return Effect.job_id == self._context.job_id, Effect.key == self.key

    def _effect(self, state: str) -> Effect:
        return Effect(
            job_id=self._context.job_id, key=self.key, state=state, epoch=self._context.epoch, at=utc_now()
        )
