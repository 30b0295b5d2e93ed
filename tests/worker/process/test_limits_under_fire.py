"""Four worker processes, hammered: a limit over all of them is never exceeded. The judge is a file that the jobs write."""

from __future__ import annotations

import pytest

from tests.servers.postgres import slow_commits
from tests.worker.process.harness import Workers
from worker.accounts.actor import Actor
from worker.jobs import actions as controls

pytestmark = pytest.mark.timeout(240)
ADA = Actor("ada", role="operator")
LIMIT = 5
JOBS = 80


def most_at_once(lines: list[list[str]]) -> int:
    """Each line is written between a job's claim and its finish, in the order of the file."""
    running = most = 0
    for what, *_ in lines:
        running += 1 if what == "start" else -1
        most = max(most, running)
    return most


async def test_a_limit_of_a_job_or_a_queue_is_never_exceeded_by_four_hammered_processes(workers: Workers):
    await workers.start(children=4, concurrency=8)
    if (
        workers.engine.database.dialect == "postgresql"
    ):  # the longer a claim takes to commit, the more others look meanwhile
        async with workers.engine.database.engine.begin() as connection:
            for statement in slow_commits("UPDATE", "job_logs", 0.02, "NEW.status = 'running'"):
                await connection.exec_driver_sql(statement)
    await limit(workers, job=LIMIT, queue=None)
    await hammer(workers, 1)
    await limit(workers, job=None, queue=LIMIT)
    await hammer(workers, 2)


async def limit(workers: Workers, *, job: int | None, queue: int | None) -> None:
    async with workers.engine.database.transaction() as session:
        await controls.set_job_limit(session, "mark", concurrency=job, actor=ADA)
        await controls.set_queue_limit(session, "default", queue, actor=ADA)


async def hammer(workers: Workers, times: int) -> None:
    for _ in range(JOBS):
        await workers.enqueue("mark", path=str(workers.witness), seconds=0.02)
    await workers.witness_of("end", JOBS * times)
    lines = workers.witnessed()[2 * JOBS * (times - 1) :]
    assert 2 <= most_at_once(lines) <= LIMIT
    assert len(lines) == 2 * JOBS
    assert len({line[1] for line in lines}) == JOBS
