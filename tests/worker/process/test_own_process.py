"""A job with a process of its own: what becomes of it, and of what it has started, when that process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from tests.worker.process.harness import Workers, alive
from worker.accounts.actor import ENGINE
from worker.joblogs import actions
from worker.joblogs.models import JobAttempt

pytestmark = pytest.mark.timeout(180)

forks = pytest.mark.parametrize("forks", [True, False], ids=["forked", "started"])


async def test_what_must_not_run_twice_fails_when_its_own_process_is_killed(workers: Workers):
    await workers.start()
    job_id = await workers.enqueue("pay", path=str(workers.witness))
    [start] = await workers.witness_of("start")
    os.kill(int(start[2]), signal.SIGKILL)
    row = await workers.job(job_id, "failed", "success", "queued")
    assert (row.status, row.reason, row.attempt) == ("failed", "worker_lost", 1)
    assert "killed by SIGKILL" in row.error
    assert len(workers.witnessed()) == 1


async def test_what_must_not_run_twice_fails_when_its_worker_does_not_wait_for_it(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    job_id = await workers.enqueue("pay", path=str(workers.witness))
    await workers.witness_of("start")
    assert await interrupted(workers) == 0
    [row] = await workers.jobs(job_id)
    assert (row.status, row.reason, row.error) == (
        "failed", "worker_lost", "Its worker left before it had ended.",
    )  # fmt: skip


async def test_what_must_not_run_twice_fails_when_its_job_server_dies_with_others(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    jobs = [await workers.enqueue("pay", path=str(workers.witness)) for _ in range(2)]
    starts = await workers.witness_of("start", 2)
    os.kill(_parent(int(starts[0][2])), signal.SIGKILL)
    rows = [await workers.job(job_id, "failed", "success", "queued") for job_id in jobs]
    assert [(row.status, row.reason) for row in rows] == [("failed", "worker_lost")] * 2


async def interrupted(workers: Workers) -> int:
    """Two Ctrl-C, the second late enough to mean that nobody waits any longer."""
    assert workers.process is not None
    workers.process.send_signal(signal.SIGINT)
    await workers.until(workers.living, lambda found: found and found[0].stopping_at is not None)
    await asyncio.sleep(1.5)
    return await workers.end(signal.SIGINT)


class Converting:
    """A job that runs, and the numbers of its process, of the program that it waits for, and of one that is to outlive it."""

    def __init__(self, workers: Workers, job_id: UUID, pids: list[int]) -> None:
        self.workers, self.job_id = workers, job_id
        self.own, self.converter, self.daemon = pids


@contextlib.asynccontextmanager
async def converting(workers: Workers, how: str = "waits", **options: float) -> AsyncIterator[Converting]:
    job_id = await workers.engine.enqueue(
        "convert", {"path": str(workers.witness), "how": how}, max_retries=0, **options
    )
    job = Converting(workers, job_id, [int(pid) for pid in (await workers.witness_of("start"))[0][1:]])
    try:
        yield job
        assert alive(job.daemon), "it has a session of its own"
    finally:
        for line in workers.witnessed():
            for pid in line[2:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


async def gone(*pids: int) -> None:
    async with asyncio.timeout(30):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


@forks
async def test_what_a_cancelled_job_has_started_is_gone(sqlite_workers: Workers, forks: bool):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers) as job:
        async with workers.engine.database.transaction() as session:
            assert await actions.cancel(session, job.job_id, actor=ENGINE) == "requested"
        assert (await workers.job(job.job_id)).status == "cancelled"
        await gone(job.own, job.converter)


@forks
async def test_what_a_killed_job_has_started_is_gone(sqlite_workers: Workers, forks: bool):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers) as job:
        os.kill(job.own, signal.SIGKILL)
        await workers.witness_of("start", 2)
        await gone(job.own, job.converter)


@forks
async def test_what_a_job_has_started_that_ran_too_long_is_gone(sqlite_workers: Workers, forks: bool):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers, timeout_s=3.0) as job:
        row = await workers.job(job.job_id)
        assert (row.status, row.reason) == ("failed", "timeout")
        await gone(job.own, job.converter)


@forks
async def test_what_a_job_has_started_whose_process_dies_by_itself_is_gone(
    sqlite_workers: Workers, forks: bool
):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers, "dies") as job:
        assert (await workers.job(job.job_id)).reason == "poison"
        for line in await workers.witness_of("start", 3):
            await gone(int(line[1]), int(line[2]))


async def test_what_a_job_has_started_that_ends_by_itself_goes_on(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    async with converting(workers, "ends") as job:
        assert (await workers.job(job.job_id)).status == "success"
        await gone(job.own)
        assert alive(job.converter)


@forks
async def test_what_a_job_has_started_is_gone_with_its_killed_worker(sqlite_workers: Workers, forks: bool):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers) as job:
        os.kill((await workers.pids())[0], signal.SIGKILL)
        await workers.until(lambda: workers.rows(JobAttempt, JobAttempt.job_id == job.job_id), bool)
        await gone(job.own, job.converter)


@forks
async def test_ctrl_c_ends_what_a_job_has_started(sqlite_workers: Workers, forks: bool):
    workers = await sqlite_workers.start(forks=forks)
    async with converting(workers) as job:
        assert await interrupted(workers) == 0
        await gone(job.own, job.converter)


async def test_what_a_job_has_started_is_gone_with_its_job_server(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    async with converting(workers) as job:
        os.kill(_parent(job.own), signal.SIGKILL)
        await workers.witness_of("start", 2)
        await gone(job.own, job.converter)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123  # a device, not a path
        return int(file.read().rpartition(")")[2].split()[1])
