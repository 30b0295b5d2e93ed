"""What a running job gets: who it is, the database behind its fence, and ways to say how it is going."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload
from uuid import UUID

from worker.errors import StaleEpoch
from worker.jobs.secret import NOTHING_SECRET, Redactor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.accounts.models import User
    from worker.events.job_bus import JobBus
    from worker.events.repository import GenericRepository
    from worker.joblogs.claims import Claimed
    from worker.jobs.effects import Once

T = TypeVar("T")

LEVELS = ("debug", "info", "warning", "error", "critical")


class Grip(Protocol):
    """What a context needs of the execution it belongs to; `worker.joblogs.hold.Hold` is one."""

    @property
    def engine(self) -> Any: ...
    @property
    def claimed(self) -> Claimed: ...
    @property
    def worker_id(self) -> UUID: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def asked(self) -> bool: ...
    def progress(self, value: float | None, note: str | None) -> None: ...
    def line(self, level: str, message: str, logger: str | None = None) -> None: ...
    def wait_asked(self, timeout_s: float) -> bool: ...


class JobContext:
    """Annotate a parameter with it and it is filled in. It works in async jobs, in threads and in child processes.

    A plain function calls the methods without `await`: they have done their work when they return.
    """

    def __init__(self, hold: Grip, redactor: Redactor = NOTHING_SECRET) -> None:
        self._hold = hold
        self._redactor = redactor
        self._job = hold.claimed
        self._saved = hold.claimed.checkpoint

    # Who it is

    @property
    def job_id(self) -> UUID:
        return self._job.id

    @property
    def job_name(self) -> str:
        return self._job.job_name

    @property
    def queue(self) -> str:
        return self._job.queue

    @property
    def attempt(self) -> int:
        """1 for the first run; retries count, runs that were lost with their worker do not."""
        return self._job.attempt

    @property
    def epoch(self) -> int:
        """Grows with every execution, lost ones too: of two executions the higher one counts."""
        return self._job.epoch

    @property
    def enqueued_at(self) -> datetime:
        return self._job.enqueued_at

    @property
    def started_at(self) -> datetime:
        return self._job.started_at

    @property
    def user_id(self) -> str | None:
        """Who asked for the job, if somebody signed in did."""
        return self._job.user_id

    @property
    def correlation_id(self) -> str:
        """Of the story this job is part of: jobs and events that it causes carry it on."""
        return self._job.correlation_id or str(self._job.id)

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this job: give it to services that take one."""
        return str(self._job.id)

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop: by a person, its time limit, or its worker. Threads look at this."""
        return self._hold.asked

    def wait_cancelled(self, timeout_s: float) -> bool:
        """For plain functions: sleeps at most this long, less when the job is asked to stop; answers whether it was."""
        return self._hold.wait_asked(timeout_s)

    @property
    def engine(self) -> Any:
        """The engine of this process, as `worker.engine.Engine`."""
        return self._hold.engine

    @property
    def bus(self) -> JobBus:
        """The event bus: `await ctx.bus.publish("invoice.paid", {"number": 7})`, `await ctx.bus.subscribe(...)`."""
        from worker.events.job_bus import JobBus

        return JobBus(self)

    # How it is going

    def progress(self, value: float | None = None, note: str | None = None) -> Answer[None]:
        """Tells how far the job is, from 0 to 1, and on what. Call it as often as you like: two a second are written."""
        self._hold.progress(value, None if note is None else self._redactor.text(str(note)))
        return Answer.done(None)

    def log(self, message: str, level: str = "info") -> Answer[None]:
        """Keeps a line with the job; `level` as in `logging`, in lower case."""
        if level not in LEVELS:
            raise ValueError(f"level={level!r}: it is one of {', '.join(LEVELS)}")
        self._hold.line(level, self._redactor.text(str(message)))
        return Answer.done(None)

    # What it keeps for its next attempt

    @property
    def saved(self) -> Any:
        """What the last `checkpoint` kept, in this attempt or an earlier one; None without one."""
        return self._saved

    def checkpoint(self, data: Any) -> Answer[None]:
        """Keeps `data` (JSON) so that the next attempt can go on from there.

        Raises:
            StaleEpoch: the job is no longer this execution's.
        """
        return self.answer(self._checkpoint(data))

    def once(self, key: str, on_doubt: Literal["raise", "run"] | None = None) -> Once:
        """Guards a block that must not be done twice, although the job may be run twice.

            async with ctx.once("invoice") as once:
                if once.first:
                    once.session.add(Invoice(...))      # kept together with the key, or not at all

        For an effect outside the database give `on_doubt`: a mark is written before the block. When an earlier
        execution died after the mark, nobody knows whether the effect happened: "raise" raises EffectInDoubt, "run"
        does it again. `once.value` is kept for later attempts.
        """
        from worker.jobs.effects import Once

        return Once(self, key, on_doubt)

    # The database, other jobs, people

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A database session, committed at the end of the block, rolled back by an exception.

        Raises:
            StaleEpoch: at the commit, when the job is no longer this execution's. Nothing was changed.
        """
        from worker.db.half_open import told_why
        from worker.jobs.fence import fenced

        with told_why():
            async with self.engine.database.session() as session:
                session.sync_session.info["acting"] = self.user_id
                yield fenced(session, self._job, self._hold.worker_id)
                if session.in_transaction() or session.sync_session.info.get("pending"):
                    await session.commit()  # an event alone is a transaction too

    @overload
    def repository(self, model: Any) -> AbstractAsyncContextManager[GenericRepository[Any]]: ...
    @overload
    def repository(self, model: Any, session: AsyncSession) -> GenericRepository[Any]: ...
    def repository(self, model: Any, session: AsyncSession | None = None) -> Any:
        """A GenericRepository of `model`: in a session of its own (`async with`), or in the one given.

        What it adds, changes and deletes is told as `doc.created`, `doc.updated`, `doc.deleted`. `model` may also be
        a repository class of your own.
        """
        from worker.events.repository import repository_type

        return self._own_repository(model) if session is None else repository_type(model)(session=session)

    def user(self) -> Answer[User | None]:
        """The person who asked for the job, or None."""
        return self.answer(self._user())

    def enqueue(
        self, job_name: str, args: dict[str, Any] | None = None, *, key: str | None = None, **options: Any
    ) -> Answer[UUID]:
        """Enqueues another job on behalf of this one. With a `key`, at most once over all attempts of this job.

        Raises:
            UnknownJob, Invalid, QueueFull: as enqueuing always does.
            StaleEpoch: the job is no longer this execution's; nothing was enqueued.
        """
        return self.answer(self._enqueue(job_name, args or {}, key, options))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """For plain functions: runs a coroutine in the worker's event loop and waits for it."""
        if _in_loop(self._hold.loop):
            coroutine.close()
            raise RuntimeError("ctx.run() is for plain functions; an async job awaits the coroutine itself")
        return asyncio.run_coroutine_threadsafe(coroutine, self._hold.loop).result()

    def answer(self, coroutine: Coroutine[Any, Any, T]) -> Answer[T]:
        """What a method gives. In the event loop: to be awaited. In a thread: done now."""
        return Answer(coroutine) if _in_loop(self._hold.loop) else Answer.done(self.run(coroutine))

    async def _checkpoint(self, data: Any) -> None:
        import sqlalchemy as sa

        from worker.db.session import changed
        from worker.joblogs.models import JobLog
        from worker.jobs.fence import held

        plain = self._redactor.value(_storable(data))
        async with self.engine.database.transaction() as session:
            rev = await session.scalar(
                sa.update(JobLog)
                .where(held(self._job, self._hold.worker_id))
                .values(checkpoint=plain, rev=JobLog.rev + 1)
                .returning(JobLog.rev)
                .execution_options(synchronize_session=False)
            )
            if rev is None:
                raise StaleEpoch(job_id=self.job_id, epoch=self.epoch)
            changed(session, "job", self.job_id, rev)
        self._saved = plain

    @asynccontextmanager
    async def _own_repository(self, model: Any) -> AsyncIterator[GenericRepository[Any]]:
        from worker.events.repository import repository_type

        async with self.session() as session:
            yield repository_type(model)(session=session)

    async def _user(self) -> User | None:
        import sqlalchemy as sa

        from worker.accounts.models import User

        if self.user_id is None:
            return None
        wanted = _uuid(self.user_id)
        async with self.engine.database.session() as session:
            found: User | None = await session.scalar(
                sa.select(User).where(User.id == wanted if wanted else User.name == self.user_id)
            )
            return found

    async def _enqueue(
        self, job_name: str, args: dict[str, Any], key: str | None, options: dict[str, Any]
    ) -> UUID:
        from worker.joblogs.actions import enqueue
        from worker.jobs.parameters import jsonable

        given = {
            "user": self.user_id,
            "caused_by": f"job:{self.job_id}",
            "correlation_id": self.correlation_id,
            **options,
        }
        if key is None:
            async with self.session() as session:
                return (await enqueue(session, job_name, jsonable(args), **given)).id
        async with self.once(f"enqueue:{key}") as once:
            if once.first:
                once.value = str((await enqueue(once.session, job_name, jsonable(args), **given)).id)
        return UUID(once.value)

    def __repr__(self) -> str:
        return f"<context of job {self.job_id} ({self.job_name}), attempt {self.attempt}>"


class Answer(Generic[T]):
    """What a method of JobContext gives back. An async job awaits it; in a plain function it is done: `result()`."""

    __slots__ = ("_coroutine", "_value")

    def __init__(self, coroutine: Coroutine[Any, Any, T] | None, value: T | None = None) -> None:
        self._coroutine = coroutine
        self._value = value

    @classmethod
    def done(cls, value: T) -> Answer[T]:
        return cls(None, value)

    def result(self) -> T:
        if self._coroutine is not None:
            raise RuntimeError("an async job awaits this")
        return self._value  # type: ignore[return-value]  # done() gave it

    def __await__(self) -> Generator[Any, Any, T]:
        if self._coroutine is not None:
            return (yield from self._coroutine.__await__())
        yield  # lets others have the event loop: a busy async job reports often
        return self._value  # type: ignore[return-value]  # done() gave it


def _in_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _storable(data: Any) -> Any:
    import json

    from worker.joblogs.storable import result_json

    text = result_json(data)
    return None if text is None else json.loads(text)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
