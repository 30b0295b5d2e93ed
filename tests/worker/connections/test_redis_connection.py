"""The connection itself: TLS, passwords, addresses that may be shown, subscriptions that come back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.valkey import ValkeyServer
from worker.connections.redis import RedisLink, RedisSubscription, address_of

WITHIN_S = 15


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("rediss://desk:s3cr3t@h:6380/2", "rediss://h:6380/2"),
        ("redis://:s3cr3t@[::1]:1/", "redis://[::1]:1/0"),
        ("redis://h/?db=3&password=s3cr3t", "redis://h:6379/3"),
        ("unix://desk:s3cr3t@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://:6379", "redis://localhost:6379/0"),
    ],
)
def test_an_address_says_where_and_never_the_password(url: str, shown: str):
    assert address_of(url) == shown


async def test_rediss_encrypts_and_believes_only_the_named_authority(
    valkey_server: ValkeyServer, tmp_path: Path, capsys
):
    authority = certificate(tmp_path)
    async with behind_tls(valkey_server.port, tmp_path) as port:
        trusted = RedisLink.to(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}")
        stranger = RedisLink.to(f"rediss://127.0.0.1:{port}/0")
        await trusted.start()
        await stranger.start()
        await asyncio.wait_for(trusted.answered.wait(), WITHIN_S)
        heard = asyncio.Event()
        subscription = RedisSubscription(
            f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}", lambda channel, data: heard.set()
        )
        subscription.add("tls-test")
        await asyncio.wait_for(subscription.confirmed.wait(), WITHIN_S)
        await trusted.client.publish("tls-test", b"x")
        await asyncio.wait_for(heard.wait(), WITHIN_S)
        await asyncio.sleep(0.5)
        assert not stranger.connected
        for one in (subscription, trusted, stranger):
            await one.stop()
    assert "certificate verify failed" in capsys.readouterr().out


async def test_a_wrong_password_is_said_once_and_not_shown(own_valkey_server: ValkeyServer, capsys):
    admin = RedisLink.to(own_valkey_server.url)
    await admin.start()
    await asyncio.wait_for(admin.answered.wait(), WITHIN_S)
    await admin.client.config_set("requirepass", "right-word")
    wrong = RedisLink.to(own_valkey_server.url.replace("redis://", "redis://:wr0ng-word@"))
    right = RedisLink.to(own_valkey_server.url.replace("redis://", "redis://:right-word@"))
    await wrong.start()
    await right.start()
    await asyncio.wait_for(right.answered.wait(), WITHIN_S)
    await asyncio.sleep(1)
    logged = capsys.readouterr().out
    assert not wrong.connected
    assert logged.count("invalid username-password pair") == 1
    assert "word@" not in logged
    for one in (wrong, right, admin):
        await one.stop()


async def test_a_channel_that_is_added_later_is_heard_and_survives_a_restart(own_valkey_server: ValkeyServer):
    link, got = RedisLink.to(own_valkey_server.url), []
    resumed = asyncio.Event()
    subscription = RedisSubscription(
        own_valkey_server.url, lambda channel, data: got.append((channel, data)), resumed.set
    )
    await link.start()
    subscription.add("one")
    await asyncio.wait_for(subscription.confirmed.wait(), WITHIN_S)
    subscription.add("two")
    await heard(link, got, "two")
    assert not resumed.is_set()
    own_valkey_server.kill()
    own_valkey_server.start()
    await asyncio.wait_for(resumed.wait(), WITHIN_S)
    got.clear()
    await heard(link, got, "one")
    await heard(link, got, "two")
    await subscription.stop()
    await link.stop()


async def heard(link: RedisLink, got: list[tuple[str, bytes]], channel: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        while (channel, b"x") not in got:
            with contextlib.suppress(Exception):
                await link.client.publish(channel, b"x")
            await asyncio.sleep(0.02)


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "cert.pem"


@contextlib.asynccontextmanager
async def behind_tls(port: int, folder: Path):
    """A port that speaks TLS and passes on to `port`: the Valkey of the wheel has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def passes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    server = await asyncio.start_server(passes_on, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
