"""On systems whose kernel does not end children with their parent, guards stand between them: macOS, the BSDs, Windows.

They are made of this one by a copy of the code that does not know Linux.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from tests.worker.process.harness import ROOT, Workers, alive

pytestmark = pytest.mark.timeout(180)
LINUX = 'LINUX = sys.platform == "linux"'


@pytest.fixture
async def elsewhere(sqlite_workers: Workers, tmp_path: Path) -> Workers:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "worker", tree / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "worker" / "process" / "sample_jobs.py", tree)
    platform = tree / "worker" / "process" / "platform.py"
    source = platform.read_text(encoding="utf-8")
    assert source.count(LINUX) == 1
    platform.write_text(source.replace(LINUX, "LINUX = False"), encoding="utf-8")
    sqlite_workers.root = tree
    sqlite_workers.environ["M_JOB_MODULES"] = "sample_jobs"
    return await sqlite_workers.start()


async def test_a_restarted_worker_ends_its_jobs_in_its_own_time(elsewhere: Workers):
    running = await elsewhere.runs()
    await elsewhere.ask("restart")
    assert (await elsewhere.job(await elsewhere.enqueue("add", a=1))).status == "success"
    elsewhere.tell()
    row = await elsewhere.job(running)
    assert (row.status, row.attempt, row.lost_count) == ("success", 1, 0)
    assert await elsewhere.end() == 0


async def test_children_end_with_a_killed_parent(elsewhere: Workers):
    await elsewhere.runs()
    clerks = await elsewhere.until(lambda: elsewhere.pids("clerk"), lambda pids: len(pids) == 1)
    pids = await elsewhere.pids() + clerks
    assert await elsewhere.end(signal.SIGKILL) == -signal.SIGKILL
    async with asyncio.timeout(30):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.05)
