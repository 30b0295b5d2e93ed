"""How fast a full queue of no-op jobs is worked off, beside other systems in the same interleaved rounds.

    python -m tests.bench.drain [--jobs 20000] [--rounds 3] [--slots 100] [SYSTEM …]

Systems: see `tests.bench.systems`. One worker process each; its start is not counted, writing what is recorded is. Prints a line per run,
then medians: jobs a second, and CPU microseconds per job of the worker and of its servers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.bench import tally
from tests.bench.systems import System, system
from tests.desk import descendants

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
LONGEST_S = 180.0
DEFAULT = ["desk-postgresql", "desk-sqlite", "taskiq_nats", "taskiq_redis"]


@dataclass
class Run:
    """One drain."""

    per_second: float
    worker_us: float
    servers_us: float
    accepted_per_second: float


def measure(name: str, jobs: int, slots: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="m-drain-") as folder:
        Path(folder).chmod(0o755)  # a database server of another user looks into it
        with system(name, Path(folder), slots) as subject:
            accepted = subject.fill(jobs)
            return drain(subject, jobs, accepted)


def drain(subject: System, jobs: int, accepted: float) -> Run:
    """From the first job's start until all have run and, where a system records, are recorded."""
    worker, end = subject.worker(), time.monotonic() + LONGEST_S

    def count() -> int:
        if time.monotonic() > end:
            raise TimeoutError((subject.folder / "worker.log").read_text()[-1000:])
        time.sleep(0.01)
        return tally.read(subject.tally).count

    while not (started := count()):
        pass
    before = cpu_s([worker.pid]), cpu_s(subject.servers)
    while count() < jobs:
        pass
    total = tally.read(subject.tally)
    over_ns = total.last_ns
    while not subject.recorded():
        count()
        over_ns = time.monotonic_ns()
    used = cpu_s([worker.pid]) - before[0], cpu_s(subject.servers) - before[1]
    rest = (jobs - started) / 1e6
    return Run(jobs / ((over_ns - total.first_ns) / 1e9), used[0] / rest, used[1] / rest, accepted)


def cpu_s(roots: list[int]) -> float:
    """Processor time of these processes, all below them, and those below that have ended."""
    total = 0.0
    for pid in {pid for root in roots for pid in (root, *descendants(root))}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(ticks) for ticks in fields[11:15]) * TICK_S
    return total


def main(arguments: argparse.Namespace) -> None:
    runs: dict[str, list[Run]] = defaultdict(list)
    for number in range(arguments.rounds):
        for name in arguments.systems:
            runs[name].append(run := measure(name, arguments.jobs, arguments.slots))
            print(f"round {number + 1}  {line(name, [run])}", flush=True)
    print("medians")
    for name in arguments.systems:
        print(line(name, runs[name]))


def line(name: str, runs: list[Run]) -> str:
    middle = {key: statistics.median(getattr(run, key) for run in runs) for key in Run.__annotations__}
    return (
        f"{name.partition('@')[0]:18} {middle['per_second']:7.0f} jobs/s   CPU per job: worker {middle['worker_us']:5.0f} us, "
        f"servers {middle['servers_us']:5.0f} us   accepted in bulk {middle['accepted_per_second']:7.0f}/s"
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=100, help="of our own worker")
    parser.add_argument("systems", nargs="*", default=DEFAULT)
    return parser.parse_args()


if __name__ == "__main__":
    main(read_arguments())
