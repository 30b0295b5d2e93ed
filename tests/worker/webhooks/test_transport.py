"""One attempt: pinned to what was judged, bounded in time and size, and told with its phases, whatever the receiver does."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.receiver import receiver, response
from worker.webhooks import resolving, transport
from worker.webhooks.addresses import Allowed
from worker.webhooks.resolving import Resolver, Unresolved
from worker.webhooks.transport import MAX_BODY, Sender
from worker.webhooks.urls import Refused, Rule

LOOPBACK = Rule(Allowed.parse(["127.0.0.1", "*.hooks.example"]))


class Names:
    """A resolver whose answers a test changes; `asked` counts the lookups."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = [ip_address(text) for text in answers], 0

    async def __call__(self, host, port):
        self.asked += 1
        return list(self.answers)


async def post(url, *, rule=LOOPBACK, body=b"{}", timeout_s=10.0, resolve=None, tls=None, headers=None):
    sender = Sender(rule, resolve=resolve, tls=tls)
    try:
        return await sender.send("POST", url, headers or {}, body, timeout_s)
    finally:
        sender.close()


async def test_sends_the_exact_bytes_and_tells_what_came_back_and_how_long_each_phase_took():
    async with receiver(response(201, b"thanks", X_Thing="1")) as there:
        answer = await post(
            there.url + "?a=b%20c", body=b'{"x":\xc3\xa9}', headers={"X-Own": "yes", "webhook-id": "m"}
        )
    (request,) = there.received
    assert (request.method, request.path, request.body) == ("POST", "/hook?a=b%20c", b'{"x":\xc3\xa9}')
    assert request.headers["host"] == f"127.0.0.1:{there.port}"
    assert (request.headers["x-own"], request.headers["webhook-id"]) == ("yes", "m")
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["connection"] == "close"
    assert (answer.status, answer.body, answer.truncated, answer.error) == (201, b"thanks", False, None)
    assert dict(answer.headers)["x-thing"] == "1"
    assert {name.lower(): value for name, value in answer.request_headers} == request.headers
    assert answer.peer_ip == "127.0.0.1"
    times = answer.times
    assert None not in (times.dns_ms, times.connect_ms, times.first_byte_ms)
    assert times.tls_ms is None
    assert times.total_ms >= times.dns_ms + times.connect_ms + times.first_byte_ms


# The address


async def test_a_name_that_turns_inward_between_save_and_send_is_refused_at_the_next_send():
    async with receiver() as there:
        url = f"http://a.hooks.example:{there.port}/"
        names = Names("127.0.0.1")
        assert (await post(url, resolve=names)).status == 200
        inside = Rule(Allowed.parse(["8.8.8.8"]))
        public = Names("8.8.8.8")
        sender = Sender(inside, resolve=public)
        assert await sender.check(url) == (ip_address("8.8.8.8"),)
        public.answers = [ip_address("127.0.0.1")]
        refused = await sender.send("POST", url, {}, b"", 5)
        assert refused.error_class == "refused"
        assert there.connections == 1


async def test_one_lookup_and_what_was_judged_is_what_is_dialled(monkeypatch):
    """The system's resolver would answer otherwise by the time of the dial."""
    names = Names("127.0.0.1")

    def lies(*args, **kwargs):
        raise AssertionError("looked up a second time")

    async with receiver() as there:
        monkeypatch.setattr(socket, "getaddrinfo", lies)
        answer = await post(f"http://a.hooks.example:{there.port}/", resolve=names)
    assert (answer.status, answer.peer_ip, names.asked) == (200, "127.0.0.1", 1)
    assert there.received[0].headers["host"] == f"a.hooks.example:{there.port}"


async def test_the_next_address_is_dialled_when_the_first_does_not_accept():
    async with receiver() as there:
        answer = await post(f"http://a.hooks.example:{there.port}/", resolve=Names("127.0.0.2", "127.0.0.1"))
    assert (answer.status, answer.peer_ip) == (200, "127.0.0.1")


async def test_every_attempt_is_a_connection_of_its_own():
    async with receiver() as there:
        sender = Sender(LOOPBACK)
        for _ in range(3):
            assert (await sender.send("POST", there.url, {}, b"", 5)).status == 200
    assert there.connections == 3


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_never_followed(status):
    async with receiver() as inner, receiver(response(status, Location=inner.url)) as there:
        answer = await post(there.url)
    assert answer.status == status
    assert inner.connections == 0


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_a_proxy_in_the_environment_is_ignored(variable, monkeypatch):
    async with receiver() as proxy, receiver() as there:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        assert (await post(there.url)).status == 200
    assert (proxy.connections, there.connections) == (0, 1)


async def test_a_cookie_is_not_brought_back():
    async with receiver(response(200, Set_Cookie="a=b")) as there:
        sender = Sender(LOOPBACK)
        for _ in range(2):
            await sender.send("POST", there.url, {}, b"", 5)
    assert all("cookie" not in request.headers for request in there.received)


# Names


async def nobody(host, port):
    raise Unresolved(f"the name {host} has no address")


async def test_a_name_without_an_address_may_be_saved_and_fails_as_dns_at_a_send():
    sender = Sender(Rule(), resolve=nobody)
    assert await sender.check("https://gone.example/") == ()
    with pytest.raises(Refused):
        await sender.check("https://gone.internal/")
    answer = await sender.send("POST", "https://gone.example/", {}, b"", 5)
    assert (answer.error_class, answer.error) == ("dns", "the name gone.example has no address")


async def test_a_slow_name_costs_one_thread_however_many_ask_and_a_limit_ends_the_wait(monkeypatch):
    asked, resolver = [], Resolver()
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(host, *args, **kwargs):
        asked.append(host)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(resolving, "RESOLVE_S", 0.01)
    ends = await asyncio.gather(*(resolver("slow.example", 443) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(end, Unresolved) for end in ends)
    monkeypatch.setattr(resolving, "RESOLVE_S", 10)
    again = asyncio.create_task(resolver("slow.example", 443))
    await asyncio.sleep(0)
    release.set()
    assert await again == [ip_address("8.8.8.8")]
    assert asked == ["slow.example"]
    resolver.close()


async def test_the_systems_resolver_gives_each_address_once_and_says_when_there_is_none(monkeypatch):
    resolver = Resolver()
    assert ip_address("127.0.0.1") in await resolver("localhost", 80)

    def none(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    with pytest.raises(Unresolved, match=r"gone\.example has no address"):
        await resolver("gone.example", 443)
    resolver.close()


# Hostile answers


async def test_a_huge_answer_is_read_to_the_cap_and_counts_by_its_status():
    sent = 0

    async def endless(writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 1000:
            sent += 1
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    async with receiver(endless) as there:
        answer = await post(there.url)
    assert (answer.status, len(answer.body), answer.truncated) == (200, MAX_BODY, True)
    assert sent < 500


async def test_a_gzip_bomb_stays_packed():
    packed = gzip.compress(b"0" * 20_000_000)
    async with receiver(response(200, packed, Content_Encoding="gzip")) as there:
        answer = await post(there.url)
    assert answer.body == packed[:MAX_BODY]


async def test_a_body_that_drips_is_left_after_a_while_and_the_status_counts(monkeypatch):
    monkeypatch.setattr(transport, "BODY_S", 0.05)

    async def drip(writer):
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000\r\n\r\nabc")
        await writer.drain()
        await asyncio.Event().wait()

    async with receiver(drip) as there:
        answer = await post(there.url, timeout_s=3600)
    assert (answer.status, answer.body, answer.truncated, answer.error_class) == (500, b"abc", True, None)


async def test_the_deadline_ends_a_body_too():
    async def drip(writer):
        writer.write(b"HTTP/1.1 204 Fine\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    async with receiver(drip) as there:
        answer = await post(there.url, timeout_s=0.3)
    assert answer.status == 204


async def silent(writer):
    await asyncio.Event().wait()


async def informs_for_ever(writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def drips_headers(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("hostile", [silent, informs_for_ever, drips_headers])
async def test_the_deadline_is_one_for_the_whole_attempt(hostile):
    async with receiver(hostile) as there:
        answer = await post(there.url, timeout_s=0.2)
    assert (answer.status, answer.error_class, answer.error) == (None, "timeout", "no answer within 0.2 s")
    assert answer.peer_ip == "127.0.0.1"


async def resets(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        (resets, "reset"),
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-", "reset"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        (b"HTTP/1.1 99999 X\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000, "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "protocol"),
    ],
)
async def test_what_is_no_answer_is_told_by_its_class(answer, error_class):
    async with receiver(answer) as there:
        result = await post(there.url)
    assert (result.status, result.error_class) == (None, error_class)
    assert result.error


async def test_a_body_that_breaks_off_changes_nothing():
    async with receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") as there:
        answer = await post(there.url)
    assert (answer.status, answer.body, answer.truncated) == (200, b"abc", True)


async def test_nobody_at_the_port_is_told_with_the_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answer = await post(f"http://127.0.0.1:{port}/")
    assert answer.error_class == "connect"
    assert f"127.0.0.1 port {port}" in answer.error


async def test_a_header_that_would_break_the_request_is_never_sent():
    async with receiver() as there:
        answer = await post(there.url, headers={"X-Own": "a\r\nX-Evil: b"})
    assert (answer.error_class, there.received) == ("protocol", [])


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux can a process count its open files")
async def test_nothing_stays_open_after_hostile_attempts():
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    transport.system_trust()
    async with receiver(silent) as there:
        before = open_files()
        for _ in range(5):
            await post(there.url, timeout_s=0.05)
            await post(there.url.replace("http:", "https:"), timeout_s=0.05)
    assert there.connections == 10
    await asyncio.sleep(0)
    assert open_files() <= before


# TLS


def certified(tmp_path, name, *, days=1):
    """A server context for `name`, and a client context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    start, end = sorted((now - timedelta(days=2), now + timedelta(days=days)))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / f"{name}.pem"
    path.write_bytes(pem + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_checks_the_certificate_against_the_name_of_the_url_not_the_address(tmp_path):
    server, trusting = certified(tmp_path, "a.hooks.example")
    asked = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with receiver(tls=server) as there:
        good = await post(f"https://a.hooks.example:{there.port}/", resolve=Names("127.0.0.1"), tls=trusting)
        bad = await post(f"https://b.hooks.example:{there.port}/", resolve=Names("127.0.0.1"), tls=trusting)
        unknown = await post(f"https://a.hooks.example:{there.port}/", resolve=Names("127.0.0.1"))
    assert good.status == 200
    assert good.times.tls_ms is not None
    assert asked[0] == "a.hooks.example"
    assert (bad.error_class, unknown.error_class) == ("tls", "tls")
    assert "b.hooks.example" in bad.error
    assert len(there.received) == 1


async def test_tls_that_expired_or_is_none_is_told_as_tls(tmp_path):
    async def talks_plainly(_reader, writer):
        writer.write(b"HTTP/1.1 400 Plain HTTP\r\n\r\n")
        writer.close()

    expired, trusting = certified(tmp_path, "a.hooks.example", days=-1)
    plain = await asyncio.start_server(talks_plainly, "127.0.0.1", 0)
    async with receiver(tls=expired) as there, plain:
        for port in (there.port, plain.sockets[0].getsockname()[1]):
            answer = await post(f"https://a.hooks.example:{port}/", resolve=Names("127.0.0.1"), tls=trusting)
            assert answer.error_class == "tls"
