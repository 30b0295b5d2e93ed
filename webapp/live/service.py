"""Live, put together for one process: what the backplane says goes to the feeds, what pages say to the watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
import structlog
from jinja2 import Environment

from webapp.auth import Authenticator, CurrentUser
from webapp.live import fragments
from webapp.live.connection_manager import ConnectionManager
from webapp.live.feed import Feed
from webapp.live.hub import ABUSE, Hub, LiveSocket, Socket
from webapp.live.lists import rows
from webapp.live.messages import MAX_KEYS, BadMessage, PageMessage, RowsWanted, keys_of, parse
from webapp.live.sources import Context, Render, Source
from webapp.live.stream import Stream
from webapp.live.watch import Watch
from worker.db.session import Database
from worker.ending import end
from worker.engine import Engine
from worker.live.port import CHANGES, RESYNC, REVOKED, Message, SocketProtocol

log = structlog.get_logger(__name__)

REVIEW_S: Final = 1.0
POLL_S: Final = 1.0
MOST: Final = {"job-list": 4, "job-lines": 8}


class Live:
    """The live side of one web process. Start it after the engine, stop it before."""

    def __init__(
        self,
        database: Database,
        socket: SocketProtocol,
        authenticator: Authenticator,
        render: Render,
        sources: Iterable[Source],
    ) -> None:
        self.database = database
        self.socket = socket
        self.authenticator = authenticator
        self.render = render
        self.hub = Hub()
        self.pages: set[LiveSocket] = set()
        self.manager = ConnectionManager(socket)
        self.stream = Stream()
        self.watch: Watch[LiveSocket] = Watch()
        sources = tuple(sources)
        self.quick = Feed(database, self.watch, [source for source in sources if not source.every_s])
        self.slow = Feed(database, self.watch, [source for source in sources if source.every_s])
        self.quick.at_tick.append(self.stream)
        self._fetching: dict[LiveSocket, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None
        self._review_now = asyncio.Event()
        self._mode = ""

    @classmethod
    def of(cls, engine: Engine, authenticator: Authenticator, jinja: Environment) -> Live:
        """The live side of the desk as it is: all its fragments, its templates."""

        def render(template: str, context: Context) -> str:
            if engine.settings.read_only and "can_act" in context:
                context = {**context, "can_act": False}
            return jinja.get_template(template).render(context)

        watched = fragments.sources(render, engine)
        return cls(engine.database, engine.socket, authenticator, render, watched)

    async def start(self) -> None:
        self._unsubscribe = self.socket.subscribe(self._heard)
        loops = (self.quick.run(), self.slow.run(), self._review(), self._poll())
        self._tasks = [asyncio.create_task(loop, name="live") for loop in loops]

    async def stop(self) -> None:
        """Tells every page that the desk goes away; it connects again, to this desk or to another of its processes."""
        self._unsubscribe()
        self.hub.close_all()
        await end(*self._tasks, *self._fetching.values())

    # Sockets

    async def page(self, socket: Socket, user: CurrentUser) -> None:
        """Serves the accepted socket of a page until it closes."""
        live = LiveSocket(socket, user)
        self.pages.add(live)
        self.manager.connect(str(user.id), live)
        live.tell({"mode": self.mode}, key="mode")
        try:
            await self.hub.serve(live, lambda text: self._hear(live, text))
        finally:
            self.pages.discard(live)
            self.manager.disconnect(str(user.id), live)
            self.watch.drop(live)
            if (fetching := self._fetching.pop(live, None)) is not None:
                fetching.cancel()

    async def client(self, socket: Socket, user: CurrentUser) -> None:
        """Serves the accepted socket of an API client until it closes."""
        live = LiveSocket(socket, user)
        self.stream.join(live)
        self.manager.connect(str(user.id), live, lambda topic: self.stream.wants(live, topic))
        try:
            await self.hub.serve(live, lambda text: self.stream.hear(live, text))
        finally:
            self.stream.leave(live)
            self.manager.disconnect(str(user.id), live)

    @property
    def mode(self) -> str:
        """`live`, or `polling` while the other processes cannot be heard."""
        return "live" if self.socket.connected else "polling"

    def _hear(self, live: LiveSocket, text: str) -> None:
        """A page's message. Its keys are registered first and then asked about: what changes in between is sent twice, not lost."""
        try:
            message = parse(text)
        except BadMessage:
            live.end(ABUSE)
            return
        self._register(live, message)
        if message.rows is not None and live not in self._fetching:
            task = asyncio.create_task(self._fetch(live, message.rows), name="live: new rows")
            self._fetching[live] = task
            task.add_done_callback(lambda _: self._fetching.pop(live, None))

    def _register(self, live: LiveSocket, message: PageMessage) -> None:
        if message.watch is not None:
            self.watch.replace(live, keys_of(message.watch))
            live.tell({"mode": self.mode}, key="mode")
        if message.also is not None:
            self.watch.add(live, keys_of(message.also))
        if self._too_much(live):
            self.watch.drop(live)
            live.end(ABUSE)
            return
        pairs = keys_of([*(message.watch or ()), *(message.also or ())])
        for feed in (self.quick, self.slow):
            feed.ask(pairs)

    def _too_much(self, live: LiveSocket) -> bool:
        """A page of ours shows a list or two; each costs a query a second."""
        names = Counter(key.name for key in self.watch.keys(live))
        return names.total() > MAX_KEYS or any(names[name] > most for name, most in MOST.items())

    async def _fetch(self, live: LiveSocket, wanted: RowsWanted) -> None:
        try:
            async with self.database.read() as connection:
                found = await rows(connection, wanted, live.user.role, self.render)
        except (sa.exc.SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("live_rows_failed", error=repr(error))
            return
        if found is not None:
            live.put("rows", found.piece)
            self.watch.add(live, found.pairs)
            self.quick.ask(found.pairs)

    # The backplane

    def _heard(self, topic: str, message: Message) -> None:
        if topic == CHANGES:
            self._changed(message)
        elif topic == REVOKED:
            self._review_now.set()
        elif topic == RESYNC:
            self._resync()
        else:
            self.manager.hear(topic, message)

    def _changed(self, message: Message) -> None:
        """Only names: whoever forges one makes us read the database, nothing else."""
        named: dict[str, set[str]] = defaultdict(set)
        for change in _list(message.get("changes")):
            if (
                isinstance(change, list)
                and len(change) == 3
                and all(isinstance(part, str) for part in change[:2])
            ):
                named[change[0]].add(change[1])
        for kind, keys in named.items():
            self.quick.changed(kind, keys)
            self.slow.changed(kind, keys)
        if "user" in named:
            self._review_now.set()
        if message.get("outbox"):
            self.quick.changed("event", set())
            self.slow.changed("event", set())
        if self.stream.committed(_uuids(_list(message.get("outbox")))):
            self.quick.wake()

    def _resync(self) -> None:
        self._review_now.set()
        self.stream.look_back()
        for feed in (self.quick, self.slow):
            feed.ask_all()
            feed.wake()

    # Loops

    async def _review(self) -> None:
        """Every second, and at once when somebody's rights changed."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REVIEW_S):
                    await self._review_now.wait()
            self._review_now.clear()
            try:
                for live in await self.hub.review(self.authenticator):
                    live.tell({"stale": "rights"}, key="stale")
            except (sa.exc.SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("live_review_failed", error=repr(error))
            except Exception:
                log.exception("live_review_failed")

    async def _poll(self) -> None:
        """While the backplane is away: asks the database every second, and the badge says so."""
        while True:
            await asyncio.sleep(POLL_S)
            if self.mode != self._mode:
                self._mode = self.mode
                for live in tuple(self.pages):
                    live.tell({"mode": self.mode}, key="mode")
            if not self.socket.connected:
                self._resync()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _uuids(values: list[Any]) -> list[UUID]:
    found = []
    for value in values:
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            found.append(UUID(value))
    return found
