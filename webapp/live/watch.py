"""Which socket shows which fragment, at which revision: a pure table."""

from __future__ import annotations

import sys
from collections.abc import Collection, Hashable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Key(NamedTuple):
    """One fragment on a page: `job-row:0198…`. Written `<name>:<id>`, the id may hold anything."""

    name: str
    id: str

    def __str__(self) -> str:
        return f"{self.name}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Key:
        name, _, of = text.partition(":")
        return cls(name, of)


class _Shown(Generic[S]):
    """One fragment and the sockets that show it. Sockets share it, so that a page of fifty rows costs little."""

    __slots__ = ("key", "revs")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.revs: dict[S, str] = {}


class Watch(Generic[S]):
    """Sockets by fragment and fragments by socket. A revision is text: what the page has, or what it was sent last."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, _Shown[S]]] = {}
        self._by_socket: dict[S, tuple[_Shown[S], ...]] = {}

    def replace(self, socket: S, pairs: Iterable[tuple[Key, str]]) -> None:
        """The page of this socket now shows exactly these."""
        before = self._by_socket.pop(socket, ())
        self.add(socket, pairs)
        kept = set(map(id, self._by_socket[socket]))
        for shown in before:
            if id(shown) not in kept:
                self._remove(socket, shown)

    def add(self, socket: S, pairs: Iterable[tuple[Key, str]]) -> None:
        """The page of this socket shows these too."""
        found = dict.fromkeys(self._by_socket.get(socket, ()))
        for key, rev in pairs:
            shown = self._shown(key)
            shown.revs[socket] = sys.intern(rev)
            found[shown] = None
        self._by_socket[socket] = tuple(found)

    def drop(self, socket: S) -> None:
        for shown in self._by_socket.pop(socket, ()):
            self._remove(socket, shown)

    def sent(self, socket: S, key: Key, rev: str) -> None:
        """This revision is on its way to the socket; nothing older needs to be sent."""
        shown = self._by_name.get(key.name, {}).get(key.id)
        if shown is not None and socket in shown.revs:
            shown.revs[socket] = sys.intern(rev)

    def keys(self, socket: S) -> Collection[Key]:
        return [shown.key for shown in self._by_socket.get(socket, ())]

    def ids(self, name: str) -> AbstractSet[str]:
        """Everything watched under this name, as it is now and will be: copy it to keep it."""
        return self._by_name.get(name, _NONE).keys()

    def has(self, key: Key) -> bool:
        return key.id in self._by_name.get(key.name, ())

    def watchers(self, key: Key) -> Iterator[tuple[S, str]]:
        """(socket, the revision it has), a copy: sockets may come and go meanwhile."""
        shown = self._by_name.get(key.name, {}).get(key.id)
        return iter(tuple(shown.revs.items()) if shown is not None else ())

    def _shown(self, key: Key) -> _Shown[S]:
        ids = self._by_name.setdefault(key.name, {})
        shown = ids.get(key.id)
        if shown is None:
            shown = ids[key.id] = _Shown(key)
        return shown

    def _remove(self, socket: S, shown: _Shown[S]) -> None:
        shown.revs.pop(socket, None)
        if shown.revs:
            return
        ids = self._by_name.get(shown.key.name, {})
        if ids.get(shown.key.id) is shown:
            del ids[shown.key.id]
        if not ids:
            self._by_name.pop(shown.key.name, None)


_NONE: dict[str, Any] = {}


def is_news(found: str, has: str) -> bool:
    """Numbers are revisions that grow; any other revision (a digest) is news when it differs."""
    if found.isdecimal() and has.isdecimal():
        return int(found) > int(has)
    return found != has
