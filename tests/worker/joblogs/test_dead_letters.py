"""Dead letters: failures of one cause are one group, until they are retried, resolved, or happen again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.worker.joblogs.conftest import ADA, Bench
from worker.db.base import utc_now
from worker.errors import Invalid
from worker.joblogs import bulk, sweeper
from worker.joblogs.dead_letters import FailureGroup, failure_groups, one_group
from worker.joblogs.models import JobLog, Operation
from worker.joblogs.recorder import Outcome, Recorder
from worker.jobs.models import JobCatalogue


async def fail(
    bench: Bench, recorder: Recorder, error: str = "OSError: host 1 is away", **options: Any
) -> JobLog:
    claimed = await bench.running(recorder, **options)
    await recorder.finish(Outcome(claimed, "failed", error=error))
    return await bench.row(claimed.id)


async def groups(bench: Bench) -> list[FailureGroup]:
    async with bench.database.read() as connection:
        return await failure_groups(connection)


async def carry_out(bench: Bench, action: str, wanted: dict[str, Any]) -> Operation:
    """Plans it and does what a clerk would do."""
    async with bench.database.transaction() as session:
        operation = await bulk.start(session, action, wanted, actor=ADA)
    while await bulk.run_pending(bench.database):
        continue
    async with bench.database.session() as session:
        return await session.get_one(Operation, operation.id)


async def test_failures_of_one_cause_are_one_group_whatever_their_numbers(bench: Bench) -> None:
    recorder = await bench.recorder()
    first = await fail(bench, recorder)
    last = await fail(bench, recorder, "OSError: host 22 is away")
    other = await fail(bench, recorder, "KeyError: 'x'")
    found = await groups(bench)
    assert [(group.count, group.last_job_id) for group in found] == [(1, other.id), (2, last.id)]
    assert (found[1].job_name, found[1].queue) == ("add", "default")
    assert (found[1].first_at, found[1].last_at) == (first.completed_at, last.completed_at)
    async with bench.database.read() as connection:
        assert await one_group(connection, found[1].fingerprint) == found[1]
        assert await one_group(connection, "0" * 32) is None
        assert await one_group(connection, "' OR 1=1") is None


async def test_a_group_is_resolved_until_it_happens_again(bench: Bench) -> None:
    recorder = await bench.recorder()
    await fail(bench, recorder)
    await fail(bench, recorder)
    (group,) = await groups(bench)
    assert group.resolved_at is None
    operation = await carry_out(bench, "resolve", {"q": group.query})
    assert (operation.done, operation.refused, await groups(bench)) == (2, 0, [])
    again = await fail(bench, recorder, "OSError: host 333 is away")
    (back,) = await groups(bench)
    assert (back.fingerprint, back.count, back.last_job_id) == (group.fingerprint, 1, again.id)
    assert back.resolved_at is not None


async def test_a_group_is_retried_as_it_is(bench: Bench) -> None:
    recorder = await bench.recorder()
    jobs = [await fail(bench, recorder) for _ in range(3)]
    (group,) = await groups(bench)
    operation = await carry_out(bench, "retry", {"q": group.query})
    assert (operation.done, operation.refused, await groups(bench)) == (3, 0, [])
    assert [(await bench.row(job.id)).status for job in jobs] == ["queued"] * 3


async def test_a_group_is_retried_with_some_arguments_replaced(bench: Bench) -> None:
    recorder = await bench.recorder()
    jobs = [await fail(bench, recorder, args={"a": n, "b": 1}) for n in range(3)]
    (group,) = await groups(bench)
    operation = await carry_out(bench, "rerun", {"q": group.query, "args": {"b": 2}})
    assert (operation.done, operation.refused, await groups(bench)) == (3, 0, [])
    for job in jobs:
        old = await bench.row(job.id)
        assert (old.status, old.resolved_at is None) == ("failed", False)
    async with bench.database.session() as session:
        found = (await session.scalars(JobLog.__table__.select().where(JobLog.status == "queued"))).all()
    new = [await bench.row(job_id) for job_id in found]
    assert sorted((job.args["a"], job.args["b"], str(job.rerun_of)) for job in new) == sorted(
        (n, 2, str(job.id)) for n, job in enumerate(jobs)
    )


async def test_arguments_that_do_not_fit_start_nothing(bench: Bench) -> None:
    await fail(bench, await bench.recorder())
    (group,) = await groups(bench)
    with pytest.raises(Invalid, match="bad: it is not allowed"):
        await carry_out(bench, "rerun", {"q": group.query, "args": {"bad": 1}})
    with pytest.raises(Invalid, match="args: must be a JSON object"):
        await carry_out(bench, "rerun", {"q": group.query, "args": [1]})
    with pytest.raises(Invalid, match="args is not known"):
        await carry_out(bench, "retry", {"q": group.query, "args": {"a": 1}})
    (still,) = await groups(bench)
    assert still == group


async def test_what_a_dead_worker_or_an_unknown_name_left_behind_is_a_dead_letter_too(bench: Bench) -> None:
    now = utc_now()
    fragile = JobCatalogue(
        name="add", module="m", queue="default", on_lost="fail", first_seen_at=now, advertised_at=now
    )
    async with bench.database.transaction() as session:
        session.add(fragile)
    recorder = await bench.recorder(names=("add",))
    lost = await bench.running(recorder)
    await sweeper.rescue_worker(bench.database, recorder.worker_id, "killed")
    assert (await bench.row(lost.id)).reason == "worker_lost"
    await bench.recorder(names=("add",), started_at=now - timedelta(minutes=10))
    unknown = await bench.enqueue("mail")
    async with bench.database.transaction() as session:
        (await session.get_one(JobLog, unknown.id)).run_at = now.replace(year=2020)
    assert await sweeper.fail_unknown(bench.database) == 1
    assert {(group.job_name, group.count) for group in await groups(bench)} == {("add", 1), ("mail", 1)}
