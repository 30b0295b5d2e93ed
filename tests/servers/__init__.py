"""The real servers that tests talk to: found in wheels or on the system, started on loopback ports, gone with the test run.

Each module has a class with `start()`, `stop()` and `kill()`, and works outside pytest too.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


class Missing(Exception):
    """This machine cannot provide a server; the message says what was tried and what to install."""


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def cache_folder() -> Path:
    """Where fetched and unpacked things are kept between runs: `M_TEST_CACHE`, else `.tools/test` of the checkout."""
    folder = Path(os.environ.get("M_TEST_CACHE") or Path(__file__).resolve().parents[2] / ".tools" / "test")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
