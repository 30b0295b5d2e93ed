"""The job that benchmarks run."""

from __future__ import annotations

from tests.bench.tally import hit
from worker import job


@job(name="noop", retry=0)
async def noop(sent_ns: int = 0) -> None:
    """Does nothing, and is counted."""
    hit(sent_ns)
