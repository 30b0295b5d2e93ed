"""`m worker`, a database, a broker: what is enqueued runs, whatever becomes of its doorbell."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.servers.nats import NatsServer
from tests.servers.valkey import ValkeyServer
from tests.worker.process.harness import Workers, broker_at
from worker.db.base import new_id
from worker.db.session import Doorbell
from worker.joblogs.models import JobLog

pytestmark = pytest.mark.timeout(180)


async def test_jobs_run_and_their_results_are_read_by_taskiq(workers: Workers):
    await workers.start()
    from taskiq import AsyncTaskiqTask

    job_id = await workers.enqueue("add", a=2, b=3)
    task: AsyncTaskiqTask[int] = AsyncTaskiqTask(str(job_id), workers.engine.broker.result_backend)
    result = await task.wait_result(timeout=60)
    assert (result.is_err, result.return_value) == (False, 5)


async def test_two_children_never_run_the_same_job_and_epoch(workers: Workers):
    await workers.start(children=2, concurrency=5)
    ids = [await workers.enqueue("mark", path=str(workers.witness), seconds=0.01) for _ in range(100)]
    await workers.witness_of("end", 100)
    starts = Counter((line[1], line[2]) for line in workers.witnessed() if line[0] == "start")
    assert set(starts.values()) == {1}
    assert {job_id for job_id, _ in starts} == {str(job_id) for job_id in ids}


async def test_polls_run_jobs_whose_doorbells_were_all_lost(workers: Workers):
    await workers.start()

    async def lose(bells: object) -> None:
        """What a broker does that is wiped between publish and delivery."""

    workers.engine.doorbells.ring = lose  # type: ignore[method-assign]
    ids = [await workers.enqueue("add", a=n) for n in range(30)]
    for job_id in ids:
        assert (await workers.job(job_id)).status == "success"


async def test_a_job_in_any_queue_is_found_by_a_worker_that_names_none(sqlite_workers: Workers):
    await sqlite_workers.start()
    job_id = await sqlite_workers.engine.enqueue("add", {"a": 1}, queue="made-up")
    assert (await sqlite_workers.job(job_id)).status == "success"


async def test_a_worker_takes_only_from_the_queues_it_was_given(sqlite_workers: Workers):
    await sqlite_workers.start(queues="other")
    mine, not_mine = await sqlite_workers.enqueue("elsewhere"), await sqlite_workers.enqueue("add", a=1)
    assert (await sqlite_workers.job(mine)).result == "elsewhere"
    await asyncio.sleep(1.5)
    assert (await sqlite_workers.job(not_mine, "queued")).attempt == 0


async def test_each_concurrent_job_gets_its_own_taskiq_context(sqlite_workers: Workers):
    """taskiq puts every job's Context into one shared dict; 29 of 30 jobs then see another's."""
    await sqlite_workers.start(concurrency=30)
    ids = [await sqlite_workers.enqueue("depends") for _ in range(30)]
    assert [(await sqlite_workers.job(job_id)).result for job_id in ids] == [True] * 30


@pytest.mark.parametrize("broker", ["own_nats_server", "own_valkey_server"])
async def test_an_idle_worker_starts_the_next_job_after_its_broker_was_killed(
    tmp_path: Path, sqlite_url: str, broker: str, request: pytest.FixtureRequest
):
    server: NatsServer | ValkeyServer = request.getfixturevalue(broker)
    async with Workers(tmp_path, sqlite_url, **broker_at(server)) as workers:
        await workers.start()
        await workers.job(await workers.enqueue("add", a=1))
        server.kill()
        during = await workers.enqueue("add", a=2)
        assert (await workers.job(during)).status == "success"
        server.start()
        await asyncio.sleep(1)
        row = await workers.job(await workers.enqueue("add", a=3))
        assert (row.started_at - row.enqueued_at).total_seconds() < 3


async def test_after_its_return_redis_wakes_workers_again_within_two_seconds(
    tmp_path: Path, sqlite_url: str, own_valkey_server: ValkeyServer
):
    async with Workers(tmp_path, sqlite_url, **broker_at(own_valkey_server)) as workers:
        await workers.start()
        await workers.job(await workers.enqueue("add", a=1))
        own_valkey_server.kill()
        ids = [await workers.enqueue("add", a=n) for n in range(20)]
        for job_id in ids:
            assert (await workers.job(job_id)).status == "success"
        own_valkey_server.start()
        back = time.monotonic()
        await workers.until(lambda: _rings_and_is_heard(workers), bool)
        heard_after_s = time.monotonic() - back
        print(f"doorbells were heard {heard_after_s:.2f} s after Redis was back")
        assert heard_after_s < 2


async def _rings_and_is_heard(workers: Workers) -> bool:
    """Whether a doorbell of no job at all, which only the transport can bring, was taken and answered."""
    doorbells = workers.engine.doorbells
    await doorbells.ring([Doorbell(new_id(), "default")])
    if not doorbells.connected:
        return False
    stream = f"{workers.environ['M_PREFIX']}:jobs:default:normal"
    groups = await doorbells.broker.link.client.xinfo_groups(stream)
    return any(group["last-delivered-id"] != b"0-0" for group in groups)


@pytest.mark.parametrize(
    "nowhere", [{"NATS_URL": "nats://127.0.0.1:9"}, {"REDIS_URL": "redis://127.0.0.1:9"}]
)
async def test_jobs_run_while_there_is_no_broker_at_all(
    tmp_path: Path, sqlite_url: str, nowhere: dict[str, str]
):
    async with Workers(tmp_path, sqlite_url, **nowhere) as workers:
        await workers.start()
        ids = [await workers.enqueue("add", a=n) for n in range(40)]
        before = time.monotonic()
        for job_id in ids:
            assert (await workers.job(job_id)).status == "success"
        assert time.monotonic() - before < 30
        assert await workers.rows(JobLog, JobLog.status != "success") == []
