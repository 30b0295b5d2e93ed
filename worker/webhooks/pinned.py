"""httpx over a connection that goes to given addresses and nowhere else."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

import httpcore
import httpx
from httpcore import AnyIOBackend, AsyncHTTPConnection, AsyncNetworkBackend, AsyncNetworkStream

from worker.webhooks.addresses import Address

DIAL_S: Final = 10.0
"""So long one address may take to accept, so that the next one has its turn."""


class PinnedTransport(httpx.AsyncBaseTransport):
    """httpx's requests over one connection of their own. Host, SNI and the certificate's name come from the URL."""

    def __init__(self, backend: AsyncNetworkBackend, tls: ssl.SSLContext, trace: Any = None) -> None:
        self._backend, self._tls, self._trace = backend, tls, trace

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raw = request.url
        url = httpcore.URL(scheme=raw.raw_scheme, host=raw.raw_host, port=raw.port, target=raw.raw_path)
        connection = AsyncHTTPConnection(url.origin, self._tls, network_backend=self._backend)
        inner = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions={"trace": self._trace} if self._trace else {},
        )
        response = await connection.handle_async_request(inner)
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> Any:
        async for chunk in self._response.aiter_stream():
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class PinnedBackend(AsyncNetworkBackend):
    """Dials the judged addresses and nothing else, one after the other, whatever name it is given."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._inner = AnyIOBackend()
        self._stream: AsyncNetworkStream | None = None
        self.peer_ip: str | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # the port's own name
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._addresses:
            try:
                self._stream = await self._inner.connect_tcp(
                    str(address),
                    port,
                    timeout=DIAL_S,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as error:
                failure = httpcore.ConnectError(f"{address} port {port}: {words(error)}")
            else:
                self.peer_ip = str(address)
                return self._stream
        raise failure

    async def close(self) -> None:
        """Ends the connection at once, also one whose TLS never came about."""
        if self._stream is not None:
            await self._stream.aclose()


def words(error: BaseException) -> str:
    return str(error) or type(error).__name__
