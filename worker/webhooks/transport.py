"""One attempt over HTTP: the host is resolved once, every answer is judged, and only what was judged is dialled.

Nothing outlives an attempt: no connection is kept, no redirect followed, no cookie or proxy taken up. What comes back is
bounded in time and size, whatever the receiver does.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import certifi
import httpcore
import httpx

from worker.webhooks import urls
from worker.webhooks.addresses import Address
from worker.webhooks.pinned import PinnedBackend, PinnedTransport, words
from worker.webhooks.resolving import Resolve, Resolver, Unresolved
from worker.webhooks.urls import Refused, Rule, Target

MAX_BODY: Final = 65_536
"""So many bytes of an answer are read and kept."""
BODY_S: Final = 5.0
"""So long the rest of an answer is waited for: the status has decided by then."""
SAVE_RESOLVE_S: Final = 2.0
STANDARD_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "close",
    "User-Agent": "M-Desk-Webhooks/1",
}


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of each phase; None for one that was not reached. `first_byte` counts from the connection's end."""

    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt. With a `status` the receiver answered; else `error_class` and `error` say why not.

    `error_class` is one of ERROR_CLASSES. `truncated`: the body had more than `MAX_BODY` bytes, or did not end in time.
    """

    status: int | None = None
    request_headers: tuple[tuple[str, str], ...] = ()
    """All that were sent, secrets and signature in the clear: see `headers.redacted`."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    truncated: bool = False
    peer_ip: str | None = None
    times: Times = Times()
    error_class: str | None = None
    error: str | None = None


ERROR_CLASSES: Final = {
    "refused": "the address is not allowed; trying again cannot help",
    "dns": "the name has no address",
    "connect": "nothing answered at the address",
    "tls": "no safe connection: a wrong certificate, or no TLS at all",
    "timeout": "no status by the deadline",
    "reset": "the connection ended before a status came",
    "protocol": "what came back is not HTTP",
}


class Sender:
    """Sends attempts by one rule. One for each process; `close` ends its threads."""

    def __init__(
        self, rule: Rule, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.rule = rule
        self._resolver = Resolver()
        self._resolve = resolve or self._resolver
        self._tls = tls

    def close(self) -> None:
        self._resolver.close()

    async def check(self, url: str) -> tuple[Address, ...]:
        """The addresses a URL has now, judged as at a send. A name that cannot be resolved now passes: each send judges.

        Raises:
            Refused: with the same words as at a send.
        """
        target = urls.parse(url)
        try:
            async with asyncio.timeout(SAVE_RESOLVE_S):
                answers = await self._resolve_or_literal(target)
        except (Unresolved, TimeoutError):
            answers = ()
        return self.rule.judge(target, answers)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        """Makes one request, from the lookup to the last byte within `timeout_s`. Raises nothing but cancellation."""
        attempt = _Attempt(self.rule, self._resolve_or_literal, self._tls or system_trust())
        return await attempt.run(method, url, headers, body, timeout_s)

    async def _resolve_or_literal(self, target: Target) -> Sequence[Address]:
        return (
            [target.address] if target.address is not None else await self._resolve(target.host, target.port)
        )


@cache
def system_trust() -> ssl.SSLContext:
    """The authorities that this machine trusts, and those of certifi. SSL_CERT_FILE adds one's own."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class _Attempt:
    """The state of one attempt, so that what is known at its end can be told however it ends."""

    def __init__(
        self, rule: Rule, answers: Callable[[Target], Awaitable[Sequence[Address]]], tls: ssl.SSLContext
    ) -> None:
        self._rule, self._answers, self._tls = rule, answers, tls
        self._backend: PinnedBackend | None = None
        self._began = self._mark = time.perf_counter()
        self._answer = Answer()

    async def run(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                await self._exchange(method, url, headers, body)
        except TimeoutError:
            if self._answer.status is None:
                self._failed("timeout", f"no answer within {timeout_s:g} s")
        except Refused as error:
            self._failed("refused", str(error))
        except Unresolved as error:
            self._failed("dns", str(error))
        except ssl.SSLError as error:
            self._failed("tls", words(error))
        except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as error:
            in_tls = self._answer.times.connect_ms is not None
            self._failed("tls" if in_tls else "connect", words(error))
        except (httpcore.ReadError, httpcore.WriteError) as error:
            self._failed("reset", words(error) or "the connection was closed")
        except (httpcore.ProtocolError, ValueError) as error:
            closed = "disconnected without" in str(error)
            self._failed("reset" if closed else "protocol", words(error))
        finally:
            if self._backend is not None:
                await self._backend.close()
        return self._timed("total_ms", since=self._began)

    async def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        target = urls.parse(url)
        answers = await self._answers(target)
        self._timed("dns_ms")
        self._backend = PinnedBackend(self._rule.judge(target, answers))
        request = httpx.Request(method, target.url, headers={**STANDARD_HEADERS, **headers}, content=body)
        self._answer = replace(self._answer, request_headers=tuple(request.headers.multi_items()))
        transport = PinnedTransport(self._backend, self._tls, self._trace)
        response = await transport.handle_async_request(request)
        self._timed("first_byte_ms")
        received = tuple(response.headers.multi_items())
        self._answer = replace(self._answer, status=response.status_code, headers=received)
        await self._read(response)

    async def _read(self, response: httpx.Response) -> None:
        """Reads up to the cap. The status has decided: a body that breaks off or drips changes nothing."""
        found, truncated = bytearray(), True
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in response.aiter_raw():
                    found += chunk
                    if len(found) > MAX_BODY:
                        break
                else:
                    truncated = False
        except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
            pass
        finally:
            self._answer = replace(self._answer, body=bytes(found[:MAX_BODY]), truncated=truncated)

    async def _trace(self, event: str, _info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete" and self._backend is not None:
            self._answer = replace(self._answer, peer_ip=self._backend.peer_ip)
            self._timed("connect_ms")
        elif event == "connection.start_tls.complete":
            self._timed("tls_ms")

    def _failed(self, error_class: str, error: str) -> None:
        self._answer = replace(self._answer, error_class=error_class, error=error[:1000])

    def _timed(self, phase: str, since: float | None = None) -> Answer:
        now = time.perf_counter()
        spent = round((now - (self._mark if since is None else since)) * 1000, 2)
        self._mark = now
        self._answer = replace(self._answer, times=replace(self._answer.times, **{phase: spent}))
        return self._answer
