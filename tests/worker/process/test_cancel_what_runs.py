"""A running job is stopped on request: in the loop, in a thread, in a process of its own."""

from __future__ import annotations

import pytest

from tests.worker.process.harness import Workers
from worker.accounts.actor import ENGINE
from worker.joblogs import actions

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("name", ["mark", "mark_in_thread", "mark_in_process"])
async def test_a_running_job_is_cancelled(workers: Workers, name: str):
    await workers.start()
    job_id = await workers.enqueue(name, path=str(workers.witness), seconds=50)
    await workers.witness_of("start")
    async with workers.engine.database.transaction() as session:
        assert await actions.cancel(session, job_id, actor=ENGINE) == "requested"
    row = await workers.job(job_id)
    assert (row.status, row.attempt) == ("cancelled", 1)
    assert [line for line in workers.witnessed() if line[0] == "end"] == []


async def test_a_lost_control_message_only_delays_the_cancel(sqlite_workers: Workers):
    await sqlite_workers.start()
    job_id = await sqlite_workers.enqueue("mark", path=str(sqlite_workers.witness), seconds=50)
    await sqlite_workers.witness_of("start")

    async def lose(*_: object) -> None:
        """A control message is core NATS: nobody keeps it."""

    sqlite_workers.engine.doorbells.signal = lose  # type: ignore[method-assign]
    async with sqlite_workers.engine.database.transaction() as session:
        await actions.cancel(session, job_id, actor=ENGINE)
    assert (await sqlite_workers.job(job_id)).status == "cancelled"
