"""Log lines while a job runs: those after the last one on the page, appended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.hub import LiveSocket
from webapp.live.sources import Ids, Render, Revs, partial
from webapp.live.waiting import FRAME_BYTES, Piece
from webapp.live.watch import Key, Watch
from webapp.queries.one_job import LogLineView, log_lines

CHUNK = 200
"""Lines read for one job and tick; a job that logs more is caught up with in the next ticks."""
Place = tuple[int, int]
"""(epoch, seq) of a line."""


@dataclass
class LogLines:
    """A page watches `job-lines:<job id>` at the key of its last line, `<epoch>-<seq>`, or at nothing."""

    render: Render
    name: str = "job-lines"
    kinds: Collection[str] = ("job-logs",)
    every_s: float = 0.0
    settle_s: float = 0.0
    revs: Revs | None = None

    def touched(self, keys: set[str], watch: Watch[LiveSocket]) -> Iterable[str]:
        return keys & watch.ids(self.name)

    async def send(self, connection: AsyncConnection, watch: Watch[LiveSocket], ids: Ids) -> Ids:
        return [of for of in ids if await self._send(connection, watch, Key(self.name, of))]

    async def _send(self, connection: AsyncConnection, watch: Watch[LiveSocket], key: Key) -> bool:
        """One SELECT for each place that the pages have reached: nearly always one. True: there is more."""
        job_id, more = _uuid(key.id), False
        if job_id is None:
            return False
        pages: dict[Place, list[LiveSocket]] = defaultdict(list)
        for live, has in watch.watchers(key):
            if (place := _place(has)) is not None:
                pages[place].append(live)
        for place, sockets in pages.items():
            if not (lines := await log_lines(connection, job_id, after=place, limit=CHUNK)):
                continue
            pieces = tuple(self._pieces(key, job_id, lines))
            more = more or len(lines) == CHUNK
            for live in sockets:
                watch.sent(live, key, lines[-1].key)
                for piece in pieces:
                    live.append(piece)
        return more

    def _pieces(self, key: Key, job_id: UUID, lines: list[LogLineView]) -> Iterable[Piece]:
        """Frames full of lines."""
        text = ""
        for line in lines:
            one = self.render("job_logs/_line.html", {"job": _JobOfLine(job_id), "line": line})
            if text and len((text + one).encode()) > FRAME_BYTES - 500:
                yield self._piece(key, text)
                text = ""
            text += one
        yield self._piece(key, text)

    def _piece(self, key: Key, text: str) -> Piece:
        return Piece.of_html(partial(key, text, "beforeend", "data-live-append"))


@dataclass(frozen=True)
class _JobOfLine:
    job_id: UUID


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _place(rev: str) -> Place | None:
    """None for what no page of ours says."""
    epoch, _, seq = (rev or "0-0").partition("-")
    return (int(epoch), int(seq)) if epoch.isdecimal() and seq.isdecimal() and len(rev) < 40 else None
