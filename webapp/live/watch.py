"""Which socket shows which fragment, at which revision: a pure table."""

from __future__ import annotations

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


class Watch(Generic[S]):
    """Sockets by fragment and fragments by socket. A revision is text: what the page has, or what it was sent last."""

    def __init__(self) -> None:
        self._revs: dict[str, dict[str, dict[S, str]]] = {}
        self._keys: dict[S, set[Key]] = {}

    def replace(self, socket: S, pairs: Iterable[tuple[Key, str]]) -> None:
        """The page of this socket now shows exactly these."""
        pairs = tuple(pairs)
        for key in self._keys.get(socket, set()) - {key for key, _ in pairs}:
            self._remove(socket, key)
        self._keys[socket] = set()
        self.add(socket, pairs)

    def add(self, socket: S, pairs: Iterable[tuple[Key, str]]) -> None:
        """The page of this socket shows these too."""
        keys = self._keys.setdefault(socket, set())
        for key, rev in pairs:
            keys.add(key)
            self._revs.setdefault(key.name, {}).setdefault(key.id, {})[socket] = rev

    def drop(self, socket: S) -> None:
        for key in self._keys.pop(socket, set()):
            self._remove(socket, key)

    def sent(self, socket: S, key: Key, rev: str) -> None:
        """This revision is on its way to the socket; nothing older needs to be sent."""
        revs = self._revs.get(key.name, {}).get(key.id)
        if revs is not None and socket in revs:
            revs[socket] = rev

    def keys(self, socket: S) -> Collection[Key]:
        return tuple(self._keys.get(socket, ()))

    def ids(self, name: str) -> AbstractSet[str]:
        """Everything watched under this name, as it is now and will be: copy it to keep it."""
        return self._revs.get(name, _NONE).keys()

    def has(self, key: Key) -> bool:
        return key.id in self._revs.get(key.name, ())

    def watchers(self, key: Key) -> Iterator[tuple[S, str]]:
        """(socket, the revision it has), a copy: sockets may come and go meanwhile."""
        return iter(tuple(self._revs.get(key.name, {}).get(key.id, {}).items()))

    def behind(self, key: Key, rev: str) -> bool:
        """Whether a socket shows less than this revision."""
        return any(is_news(rev, has) for _, has in self.watchers(key))

    def _remove(self, socket: S, key: Key) -> None:
        ids = self._revs.get(key.name, {})
        sockets = ids.get(key.id, {})
        sockets.pop(socket, None)
        if not sockets:
            ids.pop(key.id, None)
        if not ids:
            self._revs.pop(key.name, None)


_NONE: dict[str, Any] = {}


def is_news(found: str, has: str) -> bool:
    """Numbers are revisions that grow; any other revision (a digest) is news when it differs."""
    if found.isdecimal() and has.isdecimal():
        return int(found) > int(has)
    return found != has
