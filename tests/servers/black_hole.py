"""A TCP proxy that can swallow everything without closing anything: a firewall that forgot, a host without power."""

from __future__ import annotations

import asyncio
from typing import Self


class BlackHole:
    """Listens on a loopback port and passes on to `target_port`, until told to `swallow`.

    What was connected before a `swallow` stays swallowed; what connects after `open_again` passes.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.swallowing = False
        self._lost: set[asyncio.StreamWriter] = set()
        self._live: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._live | self._lost:
            writer.close()

    def swallow(self) -> None:
        self.swallowing = True
        self._lost |= self._live

    def open_again(self) -> None:
        self.swallowing = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._live |= {writer, back}
        if self.swallowing:
            self._lost |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if sink not in self._lost:
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        if sink not in self._lost:
            sink.close()
