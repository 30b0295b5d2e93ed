"""What the supervisor makes of a child that has ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from worker.process.supervisor import Child, Plan, Supervisor
from worker.settings import Settings


class Graves:
    """Stands for the pulse: remembers whose jobs were to be taken back."""

    def __init__(self) -> None:
        self.buried: list[UUID] = []

    def bury(self, worker_id: UUID, reason: str, **_: Any) -> None:
        self.buried.append(worker_id)


@pytest.mark.parametrize(
    ("ready", "code", "buried"),
    [(False, 1, False), (False, 78, False), (True, 1, True), (False, -9, True), (True, -9, True)],
)
def test_only_a_child_that_may_have_held_jobs_is_buried(
    tmp_path: Path, ready: bool, code: int, buried: bool
) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path), "NATS_URL": "nats://127.0.0.1:1"})
    supervisor, graves = Supervisor(settings, Plan(1, 1, "", "0-9")), Graves()
    supervisor._pulse = graves  # type: ignore[assignment]
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    child = Child(uuid4(), "worker.process.child", process, time.monotonic(), ready=ready)
    supervisor.places[0].child = child
    supervisor._ended(child, code)
    assert graves.buried == [child.worker_id] * buried
