"""Children and parents that die, and those that are asked to go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.worker.process.harness import ROOT, SUPERVISOR, Workers, alive
from worker.accounts.actor import cli_actor
from worker.joblogs import actions as joblog_actions
from worker.joblogs.models import JobAttempt, JobLog
from worker.process.models import Worker

pytestmark = pytest.mark.timeout(180)


async def test_a_killed_childs_job_runs_again_at_once_in_another(workers: Workers):
    await workers.start(children=2)
    siblings = await workers.pids()
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=3)
    start = (await workers.witness_of("start"))[0]
    os.kill(int(start[3]), signal.SIGKILL)
    row = await workers.job(job_id)
    first, second = await workers.witness_of("start", 2)
    assert (row.status, row.attempt, row.lost_count) == ("success", 1, 1)
    assert int(second[2]) > int(first[2])
    assert int(first[3]) in siblings
    assert int(second[3]) != int(first[3])  # its sibling, or its successor if that is quicker
    attempt = (await workers.rows(JobAttempt, JobAttempt.job_id == job_id))[0]
    assert (attempt.outcome, "SIGKILL" in attempt.error) == ("lost", True)
    print("from the child's burial to the next start:", row.started_at - attempt.ended_at)


async def test_a_lone_childs_job_runs_again_when_the_child_is_back(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=1)
    start = (await workers.witness_of("start"))[0]
    os.kill(int(start[3]), signal.SIGKILL)
    assert (await workers.job(job_id)).status == "success"


@pytest.mark.slow
async def test_jobs_that_stop_neither_at_their_limit_nor_when_asked_cost_their_child_and_burn_no_neighbour(
    sqlite_workers: Workers,
):
    workers = await sqlite_workers.start()
    stuck = await workers.engine.enqueue("deaf", {"path": str(workers.witness), "seconds": 300}, timeout_s=1)
    asked = await workers.enqueue("deaf", path=str(workers.witness), seconds=300)
    neighbour = await workers.enqueue("mark", path=str(workers.witness), seconds=300)
    await workers.witness_of("start", 3)
    async with workers.engine.database.transaction() as session:
        assert await joblog_actions.cancel(session, asked, actor=cli_actor()) == "requested"
    before = await workers.pids()
    workers.patience_s = 120
    await workers.until(workers.pids, lambda pids: set(pids) - set(before))
    row = await workers.job(stuck)
    assert (row.status, row.reason, row.lost_count) == ("failed", "timeout", 0)
    row = await workers.job(asked)
    assert (row.status, row.reason, row.lost_count) == ("cancelled", "cancelled", 0)
    released = (await workers.rows(JobAttempt, JobAttempt.job_id == neighbour))[0]
    assert (released.outcome, (await workers.job(neighbour, "running")).attempt) == ("released", 1)


async def test_children_die_with_a_killed_parent_and_the_next_one_takes_their_jobs(sqlite_workers: Workers):
    workers = await sqlite_workers.start(children=2)
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=2)
    await workers.witness_of("start")
    clerks = await workers.until(lambda: workers.pids("clerk"), lambda pids: len(pids) == 1)
    pids = await workers.pids() + clerks
    assert len(pids) == 3
    assert await workers.end(signal.SIGKILL) == -signal.SIGKILL
    async with asyncio.timeout(30):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.05)
    await workers.start(children=1)
    assert (await workers.job(job_id)).status == "success"


async def test_sigterm_lets_jobs_end_and_exits_zero(workers: Workers):
    await workers.start()
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=2)
    await workers.witness_of("start")
    assert await workers.end() == 0
    row = await workers.job(job_id)
    assert (row.status, row.attempt, len(workers.witnessed())) == ("success", 1, 2)
    assert await workers.rows(Worker, Worker.ended_at.is_(None)) == []


@pytest.mark.slow
async def test_what_does_not_end_in_time_is_released_unburnt(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    jobs = [
        await workers.enqueue("mark", path=str(workers.witness), seconds=100),
        await workers.enqueue("deaf", path=str(workers.witness), seconds=100),
    ]
    await workers.witness_of("start", 2)
    assert await workers.end() == 0
    for job_id in jobs:
        row = await workers.job(job_id, "queued")
        assert (row.attempt, row.lost_count, row.epoch) == (0, 0, 2)


async def test_a_second_ctrl_c_waits_no_longer(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    await workers.enqueue("mark", path=str(workers.witness), seconds=100)
    await workers.witness_of("start")
    assert workers.process is not None
    workers.process.send_signal(signal.SIGINT)
    while "Draining" not in workers.log():
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.5)  # one that comes at once is the same wish
    before = asyncio.get_running_loop().time()
    assert await workers.end(signal.SIGINT) == 0
    assert asyncio.get_running_loop().time() - before < 20, "it drained for 25 s"


async def test_sighup_replaces_every_child_and_loses_nothing(sqlite_workers: Workers):
    workers = await sqlite_workers.start(children=2, concurrency=2)
    before = set(await workers.pids()) | set(await workers.pids("clerk"))
    ids = [await workers.enqueue("mark", path=str(workers.witness), seconds=0.2) for _ in range(30)]
    workers.process.send_signal(signal.SIGHUP)

    async def all_pids() -> set[int]:
        return set(await workers.pids()) | set(await workers.pids("clerk"))

    await workers.until(all_pids, lambda pids: len(pids) == 3 and not pids & before)
    for job_id in ids:
        assert (await workers.job(job_id)).status == "success"
    assert len([line for line in workers.witnessed() if line[0] == "end"]) == 30


async def test_a_drained_worker_ends_when_its_jobs_have_and_its_place_stays_empty_until_all_are_replaced(
    workers: Workers,
):
    await workers.start(concurrency=1)
    running = await workers.runs()
    await workers.ask("drain")
    await workers.until(workers.living, lambda found: found and found[0].stopping_at is not None)
    waits = await workers.enqueue("add", a=1)
    await asyncio.sleep(2)
    assert [row.status for row in await workers.jobs(running, waits)] == ["running", "queued"]
    workers.tell()
    assert ((await workers.job(running)).status, len(workers.witnessed())) == ("success", 2)
    await workers.until(workers.pids, lambda pids: not pids)
    await asyncio.sleep(1)
    assert ((await workers.jobs(waits))[0].status, await workers.pids()) == ("queued", [])
    workers.process.send_signal(signal.SIGHUP)
    assert (await workers.job(waits)).status == "success"


async def test_a_restarted_worker_has_a_successor_at_once_and_ends_its_jobs(sqlite_workers: Workers):
    workers = await sqlite_workers.start(concurrency=1, max_jobs=1000, max_memory_mb=2000)
    running = await workers.runs()
    (before,) = await workers.pids()
    await workers.ask("restart")
    assert (await workers.job(await workers.enqueue("add", a=1))).status == "success"
    assert [row.status for row in await workers.jobs(running)] == ["running"]
    workers.tell()
    assert ((await workers.job(running)).status, len(workers.witnessed())) == ("success", 2)
    await workers.until(workers.pids, lambda pids: len(pids) == 1 and before not in pids)
    (worker,) = await workers.living()
    assert (worker.max_jobs, worker.max_memory_mb, worker.wish) == (1000, 2000, None)
    (clerk,) = await workers.rows(Worker, Worker.kind == "clerk", Worker.ended_at.is_(None))
    assert (clerk.max_jobs, clerk.max_memory_mb) == (None, 2000)


async def test_a_child_is_replaced_after_its_share_of_jobs(sqlite_workers: Workers):
    workers = await sqlite_workers.start(max_jobs=5)
    before = await workers.pids()
    for n in range(12):
        await workers.job(await workers.enqueue("add", a=n))
    await workers.until(workers.pids, lambda pids: not set(pids) & set(before))


async def test_a_child_that_has_grown_too_big_ends_its_jobs_and_is_replaced(sqlite_workers: Workers):
    workers = await sqlite_workers.start(max_memory_mb=400)
    before = await workers.pids()
    assert (await workers.job(await workers.enqueue("add", a=1))).status == "success"
    slow = await workers.enqueue("mark", path=str(workers.witness), seconds=1.5)
    await workers.witness_of("start")
    assert (await workers.job(await workers.enqueue("grow", megabytes=500))).status == "success"
    row = await workers.job(slow)
    assert (row.status, row.attempt, row.lost_count) == ("success", 1, 0)
    await workers.until(workers.pids, lambda pids: pids and not set(pids) & set(before))
    assert (await workers.job(await workers.enqueue("add", a=2))).status == "success"


async def test_a_child_that_keeps_dying_is_restarted_ever_more_slowly(sqlite_workers: Workers):
    workers = await sqlite_workers.start()
    job_id = await workers.enqueue("die")
    row = await workers.job(job_id)
    assert (row.status, row.reason) == ("failed", "poison")
    assert "restart_in_s=0.0" in workers.log()


async def test_a_worker_without_a_broker_url_says_so(tmp_path: Path, sqlite_url: str):
    code, said = await _run_to_end(Workers(tmp_path, sqlite_url, None))
    assert (code, "set NATS_URL" in said) == (78, True)


async def test_a_module_that_does_not_import_ends_the_worker_at_once(
    tmp_path: Path, sqlite_url: str, nats_server
):
    code, said = await _run_to_end(Workers(tmp_path, sqlite_url, nats_server.url, M_JOB_MODULES="not_there"))
    assert (code, "there is no module 'not_there'" in said) == (78, True)


async def _run_to_end(workers: Workers) -> tuple[int, str]:
    command = [sys.executable, "-c", SUPERVISOR, json.dumps({"processes": 1})]
    environ = {k: v for k, v in os.environ.items() if k not in ("NATS_URL", "REDIS_URL")} | workers.environ
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


async def test_what_a_killed_child_had_done_but_not_written_is_not_done_again(workers: Workers):
    await workers.start()
    job_id = await workers.enqueue("mark", path=str(workers.witness), seconds=1)
    start = (await workers.witness_of("start"))[0]
    async with workers.engine.database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == job_id).values(note="locked"))
        await workers.witness_of("end")  # and its end cannot be committed
        os.kill(int(start[3]), signal.SIGKILL)
    row = await workers.job(job_id)
    assert (row.status, row.attempt, row.lost_count, row.note) == ("success", 1, 0, "locked")
    assert len(workers.witnessed()) == 2
