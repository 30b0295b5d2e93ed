"""The gate in front of every route, found or not: who calls, from where, by which name; and the headers of every answer."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import structlog
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from worker.db.base import new_id
from worker.settings import Settings

if TYPE_CHECKING:
    from webapp.auth import Authenticator

log = structlog.get_logger("webapp.access")

MAX_BODY_BYTES: Final = 1_000_000
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32_768
FORM_TYPES: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
READS: Final = ("GET", "HEAD", "OPTIONS")
ENTRANCES: Final = ("/sign-in", "/sign-out", "/api/v1/stream/ticket")
"""What a read-only desk still takes: coming in, as a person or to the stream, and leaving."""
TOKEN_PARAMETERS: Final = frozenset({"token", "access_token", "api_token", "api_key", "authorization"})
READ_ONLY_DESK: Final = "This desk is read-only (M_READ_ONLY is on): it shows everything and changes nothing."
STREAM: Final = "/api/v1/stream"
"""The one path whose query may hold a token: a ticket that works once, for a minute."""

_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a request comes from and by which address it reached us, proxies that we trust looked through."""

    ip: str
    scheme: str
    host: str
    request_id: str


def peer(connection: Any) -> Peer:
    """The Peer of a request or socket."""
    found: Peer = connection.scope["state"]["peer"]
    return found


def is_api(path: str) -> bool:
    """Paths for programs: they know a caller by bearer token only, never by cookie."""
    return path.startswith("/api/") or path == "/metrics"


class Gate:
    """Wraps the whole application, so that also what no route answers passes through it."""

    def __init__(self, inner: ASGIApp, rules: Rules, authenticator: Authenticator) -> None:
        self.inner = inner
        self.rules = rules
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.inner(scope, receive, send)
            return
        started = time.perf_counter()
        found = scope["state"]["peer"] = self.rules.peer(scope)
        scope["user"] = scope["auth"] = None
        status = 0

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self.rules.add_headers(message, scope, found)
            await send(message)

        try:
            await self._enter(scope, receive, guarded_send)
        finally:
            _log_access(scope, found, status, time.perf_counter() - started)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.rules.check(scope)
            await self.authenticator.recognise(scope)
            self.rules.check_change(scope)
        except Exception as error:  # becomes the answer, as an error in a route does
            await _refuse(scope, receive, send, error)
            return
        await self.inner(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    if scope["type"] == ScopeType.WEBSOCKET:
        await receive()  # the connect message; closing before accepting answers 403
        await send({"type": "websocket.close", "code": 4403, "reason": ""})
        return
    from webapp.errors import respond

    app = scope["litestar_app"]
    request = app.request_class(scope, receive, send)
    response = respond(request, error)
    response.headers["Connection"] = "close"
    await response.to_asgi_response(app=None, request=request)(scope, receive, send)


class Rules:
    """What the settings allow, worked out once. No I/O."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        public = urlsplit(settings.public_url) if settings.public_url else None
        self.public_origin = f"{public.scheme}://{public.netloc.lower()}" if public else None
        self.public_host = (public.hostname or "").lower() if public else None

    @cached_property
    def trusted(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(proxy, strict=False) for proxy in self.settings.trusted_proxies)

    # Who calls

    def peer(self, scope: Scope) -> Peer:
        """X-Forwarded-* are believed only from M_TRUSTED_PROXIES, and only their last hop that is not one of these."""
        client = scope.get("client")
        ip, scheme, host = client[0] if client else "", scope.get("scheme", "http"), _header(scope, b"host")
        if self._is_trusted(ip):
            hops = [hop.strip() for hop in _header(scope, b"x-forwarded-for").split(",") if hop.strip()]
            while hops and self._is_trusted(ip):
                ip = _bare_ip(hops.pop()) or ip
            proto = _header(scope, b"x-forwarded-proto").rpartition(",")[2].strip().lower()
            scheme = proto if proto in ("http", "https") else scheme
            host = _header(scope, b"x-forwarded-host").rpartition(",")[2].strip() or host
        scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        return Peer(ip, scheme, host.lower(), str(new_id()))

    def _is_trusted(self, ip: str) -> bool:
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        return any(address in network for network in self.trusted)

    # What is let in

    def check(self, scope: Scope) -> None:
        """Raises HTTPException for a request that no route should see."""
        found: Peer = scope["state"]["peer"]
        _check_size(scope)
        if not self.knows_host(found.host):
            raise HTTPException(status_code=400, detail="This desk is not known by that name.")
        if scope["type"] == ScopeType.WEBSOCKET:
            self._check_socket(scope, found)
            return
        path, reads = scope["path"], scope.get("method") in READS
        if is_api(path):
            _refuse_token_in_query(scope)
        elif not reads:
            self.check_origin(scope, found)
            _check_form(scope)

    def knows_host(self, host: str) -> bool:
        """Names by which a page of another site could not reach us: DNS rebinding needs a name of its own."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if not re.fullmatch(r"[a-z0-9._:-]+|\[[0-9a-f:.]+\](:\d+)?", host) or not name:
            return False
        if name == self.public_host or name == "localhost" or _bare_ip(name):
            return True
        return self.public_host is None and ("." not in name or name == socket.getfqdn().lower())

    def origin(self, found: Peer) -> str:
        """The one origin whose pages may act here."""
        return self.public_origin or f"{found.scheme}://{found.host}"

    def check_origin(self, scope: Scope, found: Peer) -> None:
        origin, fetch_site = _header(scope, b"origin"), _header(scope, b"sec-fetch-site")
        if origin and origin.lower() != self.origin(found):
            where = f" This desk's address is {self.public_origin}." if self.public_origin else ""
            raise HTTPException(status_code=403, detail=f"This was sent by another site's page.{where}")
        if not origin and fetch_site not in ("", "same-origin", "none"):
            raise HTTPException(status_code=403, detail="This was sent by another site's page.")

    def check_change(self, scope: Scope) -> None:
        """A read-only desk refuses what changes something before any route sees it, so that none can forget to."""
        if (
            scope["type"] == ScopeType.HTTP
            and scope["method"] not in READS
            and scope["path"] not in ENTRANCES
        ):
            self.check_acting()

    def check_acting(self) -> None:
        """Raises HTTPException on a read-only desk."""
        if self.settings.read_only:
            raise HTTPException(status_code=403, detail=READ_ONLY_DESK)

    def _check_socket(self, scope: Scope, found: Peer) -> None:
        """A page's socket is known by its cookie, so it must come from our own page; a program's brings its token."""
        if is_api(scope["path"]):
            return
        if _header(scope, b"origin").lower() != self.origin(found):
            raise HTTPException(status_code=403, detail="This socket was opened by another site's page.")

    # What every answer says

    def is_secure(self, found: Peer) -> bool:
        return found.scheme == "https" or (self.public_origin or "").startswith("https:")

    def add_headers(self, message: Message, scope: Scope, found: Peer) -> None:
        headers = MutableScopeHeaders.from_message(message)
        for name, value in _FIXED_HEADERS:
            headers.setdefault(name, value)
        headers["Content-Security-Policy"] = self._policy(found)
        headers["X-Request-ID"] = found.request_id
        if self.is_secure(found):
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if not is_api(scope["path"]) and not scope["path"].startswith("/static/"):
            headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "HX-Request, HX-Request-Type")))

    def _policy(self, found: Peer) -> str:
        """Every source is ourselves. The socket is named too: older browsers do not count it as 'self'."""
        sockets = (
            f" {'wss' if self.is_secure(found) else 'ws'}://{found.host}"
            if self.knows_host(found.host)
            else ""
        )
        return (
            "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
            "base-uri 'none'; frame-ancestors 'none'; form-action 'self'; connect-src 'self'" + sockets
        )


_FIXED_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Cache-Control", "no-store"),
)


def printable(text: str) -> str:
    """`text` for a log line or a terminal: what could move the cursor, end the line or turn the text round is escaped."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _check_size(scope: Scope) -> None:
    headers = list(scope["headers"])
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES
    ):
        raise HTTPException(status_code=431, detail="The request's headers are too large.")
    length = _header(scope, b"content-length")
    if length and (not length.isdigit() or int(length) > MAX_BODY_BYTES):
        raise HTTPException(status_code=413, detail=f"The body may have {MAX_BODY_BYTES} bytes at most.")


def _refuse_token_in_query(scope: Scope) -> None:
    query = scope["query_string"].decode("latin-1")
    if any(name.lower() in TOKEN_PARAMETERS for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise HTTPException(
            status_code=400,
            detail="A token does not belong in an address: send it as Authorization: Bearer <token>.",
        )


def _check_form(scope: Scope) -> None:
    """A page's forms are forms: nothing else can be sent to them by a page of another site without its being asked."""
    kind = _header(scope, b"content-type").partition(";")[0].strip().lower()
    has_body = _header(scope, b"content-length") not in ("", "0") or bool(
        _header(scope, b"transfer-encoding")
    )
    if has_body and kind not in FORM_TYPES:
        raise HTTPException(status_code=415, detail=f"{kind or 'A body without a type'} is not a form.")


def _header(scope: Scope, wanted: bytes) -> str:
    found = [value for name, value in scope["headers"] if name == wanted]
    return b",".join(found).decode("latin-1") if found else ""


def _bare_ip(text: str) -> str | None:
    """The address in `text`, which may stand in brackets or before a port."""
    for candidate in (text, text.strip("[]"), text.rpartition(":")[0].strip("[]")):
        try:
            return str(ip_address(candidate))
        except ValueError:
            continue
    return None


def _log_access(scope: Scope, found: Peer, status: int, seconds: float) -> None:
    """Without the query: it may hold what nobody should keep."""
    path = scope["path"]
    if path.startswith("/static/") or path in ("/healthz", "/readyz"):
        return
    log.info(
        "request" if scope["type"] == ScopeType.HTTP else "socket closed",
        method=scope.get("method", "WS"),
        path=printable(path),
        status=status,
        ms=round(seconds * 1000, 1),
        ip=found.ip,
        user=printable(scope["user"].name) if scope.get("user") else None,
        request_id=found.request_id,
    )
