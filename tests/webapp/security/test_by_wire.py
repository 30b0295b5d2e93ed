"""Over a real socket: what only a server sees (cases 3, 6, 54, 65, 69), against `python -m webapp`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def port(sqlite_url_maker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A web process of its own, without a broker."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    with contextlib.contextmanager(sqlite_url_maker)() as url:  # type: ignore[arg-type] # a generator function
        log = (home / "web.log").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "webapp"], cwd=ROOT, env=_environ(url, home, port), stdout=log, stderr=log
        )
        try:
            _until_it_answers(port, process, home / "web.log")
            yield port
        finally:
            process.terminate()
            process.wait(30)
            log.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", b"431"),
        (b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde", b"400"),
        (b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\nContent-Type: text/plain\r\n\r\n", b"413"),
        (b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"4"),
        (b"GET /sign-in\r\n\r\n", b"400"),
        (b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET /sign-in HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n folded: x\r\n\r\n", b"4"),
        (b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: session=x\r\n\r\n", b"405"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ],
    ids=[
        "10,000 headers", "length and chunks", "two lengths", "negative length", "huge length", "lying chunks",
        "HTTP/0.9", "two hosts", "no host", "a folded header", "TRACE", "CONNECT", "TLS",
    ],
)  # fmt: skip
def test_a_request_that_no_honest_client_sends_is_4xx(
    port: int, request_bytes: bytes, status: bytes
) -> None:  # case 65
    answer = _say(port, request_bytes)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:300]
    assert b"session=x" not in answer
    assert b"Traceback" not in answer
    assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_the_server_does_not_say_what_it_is(port: int) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}/sign-in")
    assert "server" not in answer.headers
    assert "uvicorn" not in answer.text.lower()


def test_forwarded_headers_are_not_believed_on_loopback_either(port: int) -> None:  # case 66
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    answer = httpx.get(f"http://127.0.0.1:{port}/sign-in", headers=forwarded)
    assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_an_open_address_without_a_key_is_refused(tmp_path: Path, host: str) -> None:  # case 3
    done = _web(tmp_path, M_HOST=host)
    assert done.returncode == 78
    assert "M_SECRET_KEY" in done.stderr
    assert host in done.stderr


def test_a_short_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    done = _web(tmp_path, M_SECRET_KEY="changeme")
    assert done.returncode == 78
    assert "at least 32" in done.stderr
    assert "changeme" not in done.stderr


def test_a_wrong_url_is_named_without_its_password(tmp_path: Path) -> None:  # case 69
    done = _web(tmp_path, NATS_URL="http://desk:hunter2@nats:4222")
    assert done.returncode == 78
    assert "NATS_URL" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_taken_port_is_named(tmp_path: Path, port: int) -> None:
    done = _web(tmp_path, M_PORT=str(port))
    assert done.returncode == 78
    assert f"Port {port}" in done.stderr


def test_the_key_of_a_laptop_is_for_its_owner_only(tmp_path: Path) -> None:  # case 72
    if os.name == "nt":
        pytest.skip("only on POSIX: files have modes there")
    from worker.settings import Settings

    Settings.from_env({"M_HOME": str(tmp_path)})
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def _web(home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    values = _environ(f"sqlite+aiosqlite:///{home / 'x.db'}", home, free_port()) | environ
    return subprocess.run(
        [sys.executable, "-m", "webapp"], cwd=ROOT, env=values, capture_output=True, text=True, timeout=60
    )


def _environ(url: str, home: Path, port: int) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("M_")}
    for name in ("NATS_URL", "REDIS_URL"):
        kept.pop(name, None)
    return kept | {"DATABASE_URL": url, "M_HOME": str(home), "M_PORT": str(port)}


def _say(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while b"\r\n\r\n" not in answer and (piece := connection.recv(65_536)):
                answer += piece
        return answer


def _until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            return
        time.sleep(0.1)
    pytest.fail(f"the web process did not start: {log.read_text()[-2000:]}")
