"""Where what a page watches comes from: reads it once for all sockets, renders it once per role, gives it to those behind."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.live.hub import LiveSocket
from webapp.live.waiting import FRAME_BYTES, Piece
from webapp.live.watch import Key, Watch, is_news
from worker.accounts.actor import Actor

log = structlog.get_logger(__name__)

Ids = Collection[str]
Context = dict[str, Any]
Load = Callable[[AsyncConnection, Ids], Awaitable[Mapping[str, Context]]]
"""The templates' contexts by id, `rev` among them; what does not exist is absent."""
Revs = Callable[[AsyncConnection, Ids], Awaitable[Mapping[str, str]]]
"""Only the revisions: the cheap question that a page asks every five seconds."""
Render = Callable[[str, Context], str]
"""Renders the template of this name."""

SAFE_ID = re.compile(r"[\w.@:-]{1,200}")


class Source(Protocol):
    """One kind of thing to watch. `send` puts what is new into the sockets that watch these ids; it answers what it left."""

    @property
    def name(self) -> str: ...
    @property
    def kinds(self) -> Collection[str]: ...
    @property
    def every_s(self) -> float: ...
    @property
    def settle_s(self) -> float: ...
    @property
    def revs(self) -> Revs | None: ...

    def touched(self, keys: set[str], watch: Watch[LiveSocket]) -> Iterable[str]:
        """Which watched ids a change of these keys makes stale."""
        ...

    async def send(self, connection: AsyncConnection, watch: Watch[LiveSocket], ids: Ids) -> Ids: ...


@dataclass(frozen=True)
class Fragment:
    """A template that depends on its id and the reader's role only."""

    name: str
    template: str
    load: Load
    kinds: Collection[str] = ("job",)
    """Changes of these kinds make it stale."""
    whole: bool = False
    """Whether any such change does (a counter), or only the one of its own id (a row)."""
    every_s: float = 0.0
    """Read at most this often."""
    settle_s: float = 0.0
    """Read this long after a change: rows that people wait for go before numbers."""
    revs: Revs | None = None


@dataclass
class FragmentSource:
    """A fragment on its way: SELECT, render, send."""

    fragment: Fragment
    render: Render

    @property
    def name(self) -> str:
        return self.fragment.name

    @property
    def kinds(self) -> Collection[str]:
        return self.fragment.kinds

    @property
    def every_s(self) -> float:
        return self.fragment.every_s

    @property
    def settle_s(self) -> float:
        return self.fragment.settle_s

    @property
    def revs(self) -> Revs | None:
        return self.fragment.revs

    def touched(self, keys: set[str], watch: Watch[LiveSocket]) -> Iterable[str]:
        return watch.ids(self.name) if self.fragment.whole else keys & watch.ids(self.name)

    async def send(self, connection: AsyncConnection, watch: Watch[LiveSocket], ids: Ids) -> Ids:
        contexts = await self.fragment.load(connection, [of for of in ids if SAFE_ID.fullmatch(of)])
        for of, context in contexts.items():
            try:
                self._give(watch, Key(self.name, of), context)
            except Exception:
                log.exception("live_fragment_failed", fragment=self.name, id=of)
        return ()

    def _give(self, watch: Watch[LiveSocket], key: Key, context: Context) -> None:
        rev, name = str(context["rev"]), str(key)
        pieces: dict[str, Piece] = {}
        news: dict[str, bool] = {}
        for live, has in watch.watchers(key):
            if has not in news:
                news[has] = is_news(rev, has)
            if not news[has]:
                continue
            role = live.user.role
            if role not in pieces:
                pieces[role] = self._piece(key, context, role)
            live.put(name, pieces[role])
            watch.sent(live, key, rev)

    def _piece(self, key: Key, context: Context, role: str) -> Piece:
        text = self.render(self.fragment.template, {**context, **rights(role)})
        return fitting(key, partial(key, text))


def partial(key: Key, text: str, swap: str = "outerMorph", attribute: str = "data-live") -> str:
    """The fragment for every place on the page that shows it. The key holds nothing that means something in a selector."""
    return f"""<hx-partial hx-target="[{attribute}='{key}']" hx-swap="{swap}">{text}</hx-partial>"""


def fitting(key: Key, text: str) -> Piece:
    """What does not fit into a frame is fetched by the page itself, over HTTP."""
    piece = Piece.of_html(text)
    return piece if piece.size <= FRAME_BYTES else Piece.of_json(msgspec.json.encode({"stale": str(key)}))


def rights(role: str) -> dict[str, bool]:
    """What templates ask about the reader; the pages give the same two."""
    reader = Actor("", role)
    return {"can_act": reader.at_least("operator"), "can_admin": reader.at_least("admin")}
