"""Receivers of webhooks under load: live ones that keep a ledger, and dead ones of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from tests.servers import free_port

DEAD: Final = ("refused", "hangs", "fails", "resets", "drips")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class Endpoints:
    """`got[n]` is what the live endpoint n was sent: the ids of events, in order; `lags_s` how late each came first."""

    port: int = 0
    closed_port: int = field(default_factory=free_port)
    got: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    lags_s: list[float] = field(default_factory=list)
    connections: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def live(self, number: int) -> str:
        return f"http://127.0.0.1:{self.port}/live/{number}"

    def dead(self, kind: str) -> str:
        port = self.closed_port if kind == "refused" else self.port
        return f"http://127.0.0.1:{port}/{kind}/0"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = next(int(line[15:]) for line in lines if line.lower().startswith("content-length:"))
        body = await reader.readexactly(length)
        _, kind, number = lines[0].split(" ")[1].split("/")
        self.connections[kind] += 1
        await getattr(self, f"_{kind}")(writer, int(number), body)

    async def _live(self, writer: asyncio.StreamWriter, number: int, body: bytes) -> None:
        event = json.loads(body)
        if event["event_id"] not in self.got[number]:
            self.lags_s.append(time.time() - datetime.fromisoformat(event["timestamp"]).timestamp())
        self.got[number].append(event["event_id"])
        writer.write(OK)
        await writer.drain()

    async def _hangs(self, _writer: asyncio.StreamWriter, _number: int, _body: bytes) -> None:
        await asyncio.Event().wait()

    async def _fails(self, writer: asyncio.StreamWriter, _number: int, _body: bytes) -> None:
        writer.write(FAILED)
        await writer.drain()

    async def _resets(self, writer: asyncio.StreamWriter, _number: int, _body: bytes) -> None:
        lingers: socket.socket = writer.get_extra_info("socket")
        lingers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _drips(self, writer: asyncio.StreamWriter, _number: int, _body: bytes) -> None:
        for sign in OK[:-2]:
            writer.write(bytes([sign]))
            await writer.drain()
            await asyncio.sleep(0.5)
        await asyncio.Event().wait()


@asynccontextmanager
async def endpoints() -> AsyncIterator[Endpoints]:
    """Running ones; connections that still hang at the end are dropped."""
    here = Endpoints()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await here.handle(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000)
    here.port = server.sockets[0].getsockname()[1]
    try:
        yield here
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
