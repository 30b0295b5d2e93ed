"""Processes start without what libraries would load for features that are not used here; jobs that want it get it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.desk import ROOT

HEAVY = ("aiohttp", "rich", "pygments", "advanced_alchemy")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["worker.process.child", "worker.process.clerk", "webapp.__main__", "worker.webhooks.transport"]
)
def test_a_process_starts_without_them(module: str) -> None:
    assert run(f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_a_job_that_imports_one_gets_the_real_one() -> None:
    code = """
import worker.process.child
import aiohttp, rich, pygments, advanced_alchemy.repository
print(aiohttp.ClientSession.__name__, rich.print.__name__, pygments.highlight.__name__)
"""
    assert run(code) == "ClientSession print highlight"


def test_the_library_gets_it_when_it_uses_it() -> None:
    code = """
import asyncio, inspect, sys
import worker.process.child
from taskiq.middlewares import TaskiqAdminMiddleware, taskiq_admin_middleware

async def report():
    assert "aiohttp" not in sys.modules
    client = TaskiqAdminMiddleware("http://127.0.0.1:1", "token")._get_client()
    print(type(client).__module__)
    await client.close()

asyncio.run(report())
assert inspect.getsource(taskiq_admin_middleware)
"""
    assert run(code) == "aiohttp.client"


def test_what_was_loaded_before_is_left_as_it_is() -> None:
    assert run("import rich, structlog, worker, structlog.dev; print(structlog.dev.rich is rich)") == "True"
    assert run("import rich, worker, structlog; print(structlog.dev.rich is rich)") == "True"
