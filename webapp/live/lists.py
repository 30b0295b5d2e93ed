"""New rows of a list that is open: how many there are now, and the next few when the page has room for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.hub import LiveSocket
from webapp.live.messages import RowsWanted
from webapp.live.sources import Ids, Render, Revs, rights
from webapp.live.waiting import Piece
from webapp.live.watch import Key, Watch
from webapp.queries.job_logs import LATE_AFTER_S, load_jobs
from worker.db.base import utc_now
from worker.joblogs import search
from worker.joblogs.conditions import conditions
from worker.joblogs.models import JobLog

CAP = 100
"""The hint says "100+" beyond this."""
QUICKEST_S = 0.2
SLOWEST_S = 1.0
SETTLED_S = 0.1
"""What changed in the rows that a page has goes first."""
SEARCHES_A_SECOND = 20
"""Queries for new rows that one process makes at most while jobs come in; beyond, each search waits a second."""
NOTHING = UUID(int=0)


@dataclass
class NewJobs:
    """A page watches `job-list:<search>` at the id of its first row, or at nothing when it shows none."""

    name: str = "job-list"
    kinds: Collection[str] = ("job",)
    every_s: float = QUICKEST_S
    settle_s: float = SETTLED_S
    revs: Revs | None = None

    def touched(self, keys: set[str], watch: Watch[LiveSocket]) -> Iterable[str]:
        return watch.ids(self.name)

    async def send(self, connection: AsyncConnection, watch: Watch[LiveSocket], ids: Ids) -> Ids:
        self.every_s = min(max(len(ids) / SEARCHES_A_SECOND, QUICKEST_S), SLOWEST_S)
        for typed in ids:
            await self._send(connection, watch, Key(self.name, typed))
        return ()

    async def _send(self, connection: AsyncConnection, watch: Watch[LiveSocket], key: Key) -> None:
        """One query for all pages with this search, however different their first rows are."""
        pages: dict[UUID, list[LiveSocket]] = defaultdict(list)
        for live, first in watch.watchers(key):
            if (above := _uuid(first)) is not None:
                pages[above].append(live)
        if not pages:
            return
        newest = await newer(connection, key.id, min(pages), CAP + 1)
        for place, sockets in pages.items():
            count = sum(1 for one in newest if one > place)
            said = {"newer": str(key), "count": min(count, CAP), "more": count > CAP}
            for live in sockets:
                live.tell(said, key=("newer", key))


async def newer(
    connection: AsyncConnection, typed: str, than: UUID, limit: int, *, nearest: bool = False
) -> Sequence[UUID]:
    """Ids of matching jobs after this one, the newest of them, or those nearest to it. A search without index finds none."""
    wanted = search.parse(typed, utc_now())
    if wanted.scans or wanted.problems:
        return ()
    found = conditions(wanted, connection.dialect.name, utc_now() - timedelta(seconds=LATE_AFTER_S))
    order = JobLog.id.asc() if nearest else JobLog.id.desc()
    statement = sa.select(JobLog.id).where(*found.indexed, JobLog.id > than).order_by(order).limit(limit)
    return (await connection.scalars(statement)).all()


@dataclass(frozen=True)
class Rows:
    """Rows ready to be put above the first one of a page, and what the page shows with them."""

    piece: Piece
    pairs: list[tuple[Key, str]]


async def rows(connection: AsyncConnection, wanted: RowsWanted, role: str, render: Render) -> Rows | None:
    """The rows right above the first one on the page; None when there are none."""
    key, after = Key.parse(wanted.key), _uuid(wanted.after)
    if key.name != "job-list" or after is None:
        return None
    ids = await newer(connection, key.id, after, wanted.limit, nearest=True)
    jobs = await load_jobs(connection, ids)
    shown = [jobs[of] for of in sorted(jobs, reverse=True)]
    if not shown:
        return None
    text = "".join(render("job_logs/_row.html", {"job": job, **rights(role)}) for job in shown)
    answer = {"rows": str(key), "content": text, "target": "#job-rows", "swap": "afterbegin"}
    pairs = [(Key("job-row", str(job.job_id)), str(job.rev)) for job in shown]
    return Rows(Piece.of_json(msgspec.json.encode(answer)), pairs)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else NOTHING
    except ValueError:
        return None
