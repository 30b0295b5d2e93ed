"""Whether a job whose worker is killed in mid-run runs again, and how soon after a new worker was started.

    python -m tests.bench.killed_worker [SYSTEM …]

Systems: see `tests.bench.systems`; each with its settings as shipped. The worker and all below it get SIGKILL while the job runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.bench import tally
from tests.bench.systems import System, system
from worker.process import platform

LONGEST_S = 120.0


def measure(subject: System) -> float | None:
    """Seconds from the start of the second worker to the job's second start; None if there was none."""
    subject.fill(1)
    first = subject.worker(sleep_s=600)
    if not wait(subject, 1, LONGEST_S):
        raise TimeoutError((subject.folder / "worker.log").read_text()[-1000:])
    time.sleep(1)
    platform.kill_tree(first)
    begun = time.monotonic()
    subject.worker()
    return time.monotonic() - begun if wait(subject, 2, LONGEST_S) else None


def wait(subject: System, count: int, longest_s: float) -> bool:
    end = time.monotonic() + longest_s
    while tally.read(subject.tally).count < count:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def main(names: list[str]) -> None:
    for name in names:
        with tempfile.TemporaryDirectory(prefix="m-killed-") as folder:
            Path(folder).chmod(0o755)
            with system(name, Path(folder), 10) as subject:
                seconds = measure(subject)
        again = (
            f"runs again after {seconds:.1f} s" if seconds else f"does not run again within {LONGEST_S:.0f} s"
        )
        print(f"{name.partition('@')[0]:18} {again}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["desk-postgresql", "desk-sqlite", "taskiq_nats"])
