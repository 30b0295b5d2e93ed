"""A file of this host that knows how jobs ended before the database does: what a killed process had done is not done again.

A process that is killed cannot write any more, but what it has handed to the system stays. So a worker notes each end here, in
the very step in which the code ends, and only then in the database; whoever buries the process writes what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError

from worker.db.session import Database, will_pass
from worker.joblogs.claims import held_rows
from worker.joblogs.finishes import Outcome, unstorable, write_outcomes
from worker.process.models import Worker

FOLDER = "ended"
FEW = 65_536
"""Bytes up to which lines stay that are of no use any more: to shorten the file for each would cost more than they do."""
YOUNG_S = 3600.0
"""A process has its journal before it is known."""
FACTS = ("status", "result", "error", "traceback", "reason", "retry_after_s")

log = structlog.get_logger(__name__)


class Journal:
    """`<home>/ended/<worker id>`, a line for each end. It never raises: without a place to write it keeps nothing."""

    def __init__(self, home: Path, worker_id: UUID) -> None:
        self._path = _path(home, worker_id)
        self._owed: dict[tuple[UUID, int], bytes] = {}
        self._size = 0
        self._file: int | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            self._give_up(error)

    def note(self, outcome: Outcome) -> None:
        """Keeps how an execution ended; again the same is nothing new."""
        key = (outcome.claimed.id, outcome.claimed.epoch)
        if self._file is None or key in self._owed:
            return
        facts = [getattr(outcome, name) for name in FACTS]
        line = json.dumps([key[0].hex, key[1], *facts], ensure_ascii=True).encode() + b"\n"
        self._owed[key] = line
        self._write(line)

    def settled(self, outcome: Outcome) -> None:
        """The database knows it, or does not want it."""
        self._owed.pop((outcome.claimed.id, outcome.claimed.epoch), None)
        if self._file is not None and self._size > FEW + 2 * sum(map(len, self._owed.values())):
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
                self._size = 0
                self._write(b"".join(self._owed.values()))

    def close(self) -> None:
        """Ends it; the file stays only if something in it is still owed."""
        if self._file is None:
            return
        os.close(self._file)
        self._file = None
        if not self._owed:
            self._path.unlink(missing_ok=True)

    def _write(self, words: bytes) -> None:
        if self._file is None:
            return
        try:
            while words:
                written = os.write(self._file, words)
                self._size += written
                words = words[written:]
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning(
            "Ends of jobs cannot be kept in a file: were this process killed, jobs whose end is not written yet would run again",
            path=str(self._path),
            error=str(error),
        )
        self.close()


async def write_left(database: Database, home: Path, worker_id: UUID) -> int:
    """Writes the ends that a dead process has left in its journal, fenced as its own would be; answers how many.

    Call it before its jobs are taken back. Twice changes nothing.
    """
    path = _path(home, worker_id)
    left = _read(path)
    written = 0
    if left:
        outcomes = [
            Outcome(claimed, *left[claimed.id, claimed.epoch])
            for claimed in await held_rows(database, worker_id)
            if (claimed.id, claimed.epoch) in left
        ]
        written = await _write(database, worker_id, outcomes)
    if written:
        log.info("Wrote what a dead worker had ended", jobs=written, worker_id=str(worker_id))
    path.unlink(missing_ok=True)
    return written


async def _write(
    database: Database, worker_id: UUID, outcomes: Sequence[Outcome], *, splits: bool = True
) -> int:
    """Splits a batch that holds an offender, as the recorder does; answers how many ends are written."""
    if not outcomes:
        return 0
    try:
        return sum(await write_outcomes(database, worker_id, outcomes))
    except DBAPIError as error:
        if will_pass(error):
            raise
        if not splits:
            log.warning("What a dead worker had ended cannot be stored", error=str(error)[:200])
            return 0
        if len(outcomes) == 1:
            return await _write(database, worker_id, [unstorable(outcomes[0], error)], splits=False)
    middle = len(outcomes) // 2
    halves = outcomes[:middle], outcomes[middle:]
    return sum([await _write(database, worker_id, half) for half in halves])


async def tidy(database: Database, home: Path, now_s: float) -> int:
    """Removes the journals of workers that nobody has to bury any more; answers how many. `now_s` is the time of the day."""
    old: dict[UUID, Path] = {}
    with contextlib.suppress(OSError):
        for path in (home / FOLDER).iterdir():
            # Another clerk may have been quicker, or the file is somebody else's.
            with contextlib.suppress(OSError, ValueError):
                if now_s - path.stat().st_mtime > YOUNG_S:
                    old[UUID(path.name)] = path
    living = sa.select(Worker.id).where(Worker.id.in_(list(old)), Worker.ended_at.is_(None))
    async with database.read() as connection:
        for worker_id in await connection.scalars(living):
            del old[worker_id]
    for path in old.values():
        path.unlink(missing_ok=True)
    return len(old)


def _path(home: Path, worker_id: UUID) -> Path:
    return home / FOLDER / worker_id.hex


def _read(path: Path) -> dict[tuple[UUID, int], list[Any]]:
    """What a journal says; a line that its writer's death has cut short says nothing."""
    left: dict[tuple[UUID, int], list[Any]] = {}
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                job_id, epoch, *facts = json.loads(line)
                left[UUID(job_id), epoch] = facts
    return left
