"""What a running job says of itself: progress (at most two writes a second) and log lines, written in batches."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from worker.db.base import utc_now
from worker.db.session import Database, changed
from worker.joblogs.claims import Claimed
from worker.joblogs.models import JobLog, JobLogLine
from worker.joblogs.storable import text_of

FLUSH_S = 0.25
PROGRESS_S = 0.5
MAX_LINES = 10_000
MAX_BYTES = 2_000_000
SEQ_SPACE = 1_000_000
"""Revision of a job's log = epoch * this + seq, which grows over attempts."""

log = structlog.get_logger(__name__)


Line = dict[str, Any]
"""The columns of one JobLogLine."""
Progress = tuple[Claimed, float | None, str | None]
"""Whose it is, how far it is, and on what."""


@dataclass(slots=True)
class _Log:
    """How much one execution has logged."""

    seq: int = 0
    bytes: int = 0


class Notes:
    """Collects the notes of all jobs of one worker and writes them every quarter of a second."""

    def __init__(self, database: Database, worker_id: UUID) -> None:
        self._database = database
        self._worker_id = worker_id
        self._progress: dict[UUID, Progress] = {}
        self._written: dict[UUID, float] = {}
        self._lines: dict[UUID, list[Line]] = defaultdict(list)
        self._logs: dict[UUID, _Log] = {}
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._in_hand: set[UUID] = set()
        """Whose notes are being written."""

    def progress(self, job: Claimed, value: float | None, note: str | None) -> None:
        """Notes how far a job is (0 to 1) and on what; the newest wins."""
        value = None if value is None else min(1.0, max(0.0, float(value)))
        self._progress[job.id] = (job, value, None if note is None else text_of(note, 500)[:500])
        self._wake()

    def line(
        self, job: Claimed, level: str, message: str, logger: str | None = None, at: datetime | None = None
    ) -> None:
        """Notes one line; after 10,000 lines or 2 MB of one execution a last line says that the rest is left out."""
        kept = self._logs.setdefault(job.id, _Log())
        if kept.seq >= MAX_LINES or kept.bytes >= MAX_BYTES:
            return
        kept.seq += 1
        kept.bytes += len(message)
        if kept.seq >= MAX_LINES or kept.bytes >= MAX_BYTES:
            level, message = "warning", f"The log ends here: a job keeps at most {MAX_LINES:,} lines or 2 MB."
        self._lines[job.id].append(
            {
                "job_id": job.id,
                "epoch": job.epoch,
                "seq": kept.seq,
                "at": at or utc_now(),
                "level": level[:10],
                "logger": None if logger is None else text_of(logger, 200)[:200],
                "message": text_of(message),
            }
        )
        self._wake()

    async def settle(self, job: Claimed) -> None:
        """Writes what is still noted of a job that is about to end."""
        if job.id in self._progress or job.id in self._lines or job.id in self._in_hand:
            await self._flush(only=job.id)
        self._logs.pop(job.id, None)
        self._written.pop(job.id, None)

    async def close(self) -> None:
        """Writes everything and stops."""
        if self._task is not None:
            self._task.cancel()
        await self._flush()

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._loop())

    async def _loop(self) -> None:
        while self._progress or self._lines:
            await self._flush(due_only=True)
            await asyncio.sleep(FLUSH_S)

    async def _flush(self, only: UUID | None = None, due_only: bool = False) -> None:
        """Its turn is bounded with it, since jobs wait for both before they end."""
        progress: list[Progress] = []
        lines: list[Line] = []
        try:
            async with self._database.patience(), self._lock:
                progress, lines = self._take(only, due_only)
                await self._write(progress, lines)
        except asyncio.CancelledError:  # `close` writes them
            self._put_back(progress, lines)
            raise
        except (SQLAlchemyError, OSError) as error:
            words = (str(error) or repr(error))[:200]
            log.warning("notes_not_written", jobs=len(progress), lines=len(lines), error=words)
            if due_only:  # they go with the next flush; a job that ends does not wait for its notes
                self._put_back(progress, lines)

    async def _write(self, progress: Sequence[Progress], lines: Sequence[Line]) -> None:
        if not progress and not lines:
            return
        self._in_hand = {entry[0].id for entry in progress} | {line["job_id"] for line in lines}
        try:
            async with self._database.transaction() as session:
                await _write_lines(session, self._worker_id, lines)
                await _write_progress(session, self._worker_id, progress)
        finally:
            self._in_hand = set()

    def _take(self, only: UUID | None, due_only: bool) -> tuple[list[Progress], list[Line]]:
        now = time.monotonic()
        ids = [only] if only else list(self._progress)
        due = [
            i
            for i in ids
            if i in self._progress and not (due_only and now - self._written.get(i, 0) < PROGRESS_S)
        ]
        progress = [self._progress.pop(i) for i in due]
        self._written.update((i, now) for i in due)
        keys = [only] if only else list(self._lines)
        return progress, [line for key in keys for line in self._lines.pop(key, [])]

    def _put_back(self, progress: Sequence[Progress], lines: Sequence[Line]) -> None:
        for entry in progress:
            self._progress.setdefault(entry[0].id, entry)
        for line in reversed(lines):
            self._lines[line["job_id"]].insert(0, line)


async def _write_progress(session: AsyncSession, worker_id: UUID, entries: Sequence[Progress]) -> None:
    """Fenced like every write of a worker: a job that is no longer this execution's is left alone."""
    for job, value, note in sorted(entries, key=lambda entry: entry[0].id):
        rev = await session.scalar(
            sa.update(JobLog)
            .where(
                JobLog.id == job.id,
                JobLog.epoch == job.epoch,
                JobLog.worker_id == worker_id,
                JobLog.status == "running",
            )
            .values(progress=value, progress_note=note, rev=JobLog.rev + 1)
            .returning(JobLog.rev)
            .execution_options(synchronize_session=False)
        )
        if rev is not None:
            changed(session, "job", job.id, rev)


async def _write_lines(session: AsyncSession, worker_id: UUID, lines: Sequence[Line]) -> None:
    """Fenced too, but that the last lines of an execution may come after its end. Twice changes nothing."""
    if not (fenced := await _fenced(session, worker_id, lines)):
        return
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    await session.execute(insert(JobLogLine).on_conflict_do_nothing(), fenced)
    for line in fenced:
        changed(session, "job-logs", line["job_id"], line["epoch"] * SEQ_SPACE + line["seq"])


async def _fenced(session: AsyncSession, worker_id: UUID, lines: Sequence[Line]) -> list[Line]:
    """Those whose job nobody else has had since, and nobody has removed."""
    if not lines:
        return []
    ids = {line["job_id"] for line in lines}
    mine = sa.select(JobLog.id, JobLog.epoch).where(JobLog.id.in_(ids), JobLog.worker_id == worker_id)
    epochs = {row.id: row.epoch for row in await session.execute(mine)}
    return [line for line in lines if epochs.get(line["job_id"]) == line["epoch"]]
