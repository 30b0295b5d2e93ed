"""A batch of finishes: one offender harms nobody else, batches never deadlock, and what has ended stays as it ended."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.worker.joblogs.conftest import Bench
from worker.db.session import Database
from worker.events.models import OutboxRow
from worker.joblogs import actions
from worker.joblogs.claims import Claimed
from worker.joblogs.counters import by_status
from worker.joblogs.finishes import write_outcomes
from worker.joblogs.recorder import Outcome, Recorder
from worker.joblogs.sweeper import rescue_worker

JOBS = 9
ROUNDS = 20
REFUSED: Any = "no_status"
"""A status that the table's own constraint refuses, on both databases."""


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    """The same database as another process has it: on SQLite the transactions of one process line up."""
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many outcomes each statement of a recorder held, in their order."""
    sizes: list[int] = []

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        sizes.append(len(outcomes))
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
    return sizes


async def claimed_jobs(bench: Bench, recorder: Recorder, count: int = JOBS) -> list[Claimed]:
    bench.database.info["reception"].depths.clear()
    async with bench.database.transaction() as session:
        ids = [(await actions.enqueue(session, "add", {})).id for _ in range(count)]
    claimed = await asyncio.gather(*(recorder.claim(job_id) for job_id in ids))
    return [job for job in claimed if job is not None]


async def ends_told(bench: Bench) -> Counter[tuple[str, str]]:
    """How often each end of each job was told: (event type, job id)."""
    async with bench.database.session() as session:
        rows = await session.scalars(sa.select(OutboxRow))
        events = [event for row in rows for event in row.events]
    kinds = ("job.succeeded", "job.failed", "job.lost")
    return Counter((e["event_type"], e["data"]["job_id"]) for e in events if e["event_type"] in kinds)


async def counts(bench: Bench) -> dict[str, int]:
    async with bench.database.read() as connection:
        return {status: number for status, number in (await by_status(connection)).items() if number}


# An offender


@pytest.mark.parametrize("offenders", [(0,), (4,), (JOBS - 1,), (0, 1), (2, 7), tuple(range(JOBS))], ids=str)
async def test_who_is_refused_by_the_database_fails_alone_and_the_others_are_written(
    bench: Bench, sizes: list[int], offenders: tuple[int, ...]
) -> None:
    recorder = await bench.recorder()
    jobs = await claimed_jobs(bench, recorder)
    outcomes = [
        Outcome(job, REFUSED if place in offenders else "success", result=str(place))
        for place, job in enumerate(jobs)
    ]
    assert await asyncio.gather(*(recorder.finish(outcome) for outcome in outcomes)) == [True] * JOBS
    assert sizes[0] == JOBS  # they did share a statement
    assert (recorder.finished, recorder.stale) == (JOBS, 0)
    for place, job in enumerate(jobs):
        row, attempts = await bench.row(job.id), await bench.attempts(job.id)
        if place not in offenders:
            assert (row.status, row.result, row.reason, attempts) == ("success", place, None, [])
            continue
        assert (row.status, row.result, row.reason) == ("failed", None, "result_unstorable")
        assert row.error is not None
        assert row.error.startswith("Its end could not be stored: ")
        assert "ck_job_logs_status" in row.error
        assert [(each.outcome, each.error) for each in attempts] == [("failed", row.error)]
    assert set((await ends_told(bench)).values()) == {1}
    expected = {"success": JOBS - len(offenders), "failed": len(offenders)}
    assert await counts(bench) == {status: number for status, number in expected.items() if number}


async def test_one_offender_among_many_is_found_by_halving(bench: Bench, sizes: list[int]) -> None:
    recorder = await bench.recorder()
    jobs = await claimed_jobs(bench, recorder, 32)
    outcomes = [Outcome(job, REFUSED if place == 21 else "success") for place, job in enumerate(jobs)]
    await asyncio.gather(*(recorder.finish(outcome) for outcome in outcomes))
    assert sizes == [32, 16, 16, 8, 4, 4, 2, 1, 1, 1, 2, 8]  # its end, then its failure: the last two 1s


async def test_an_offender_that_is_taken_over_before_its_failure_is_written_is_stale(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    mine, lost = await claimed_jobs(bench, recorder, 2)

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        if [(o.claimed.id, o.reason) for o in outcomes] == [(lost.id, "result_unstorable")]:
            assert await rescue_worker(bench.database, recorder.worker_id, "said to be dead") == 1
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
    answers = await asyncio.gather(
        recorder.finish(Outcome(mine, "success")), recorder.finish(Outcome(lost, REFUSED))
    )
    assert (answers, recorder.finished, recorder.stale) == ([True, False], 1, 1)
    row = await bench.row(lost.id)
    assert (row.status, row.lane, row.epoch) == ("queued", "rescue", 2)


async def test_a_database_that_goes_away_while_a_batch_is_halved_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    jobs = await claimed_jobs(bench, recorder, 4)
    calls = 0

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        nonlocal calls
        calls += 1
        if calls in (2, 3):  # the first half
            raise DBAPIError("UPDATE", {}, Exception("closed in the middle"), connection_invalidated=True)
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
    outcomes = [Outcome(job, REFUSED if place == 3 else "success") for place, job in enumerate(jobs)]
    assert await asyncio.gather(*(recorder.finish(outcome) for outcome in outcomes)) == [True] * 4
    assert [(await bench.row(job.id)).status for job in jobs] == ["success"] * 3 + ["failed"]


async def test_a_database_that_goes_away_while_an_offenders_failure_is_written_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await bench.recorder()
    jobs = await claimed_jobs(bench, recorder, 2)
    away = [True]

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        if away and [outcome.reason for outcome in outcomes] == ["result_unstorable"]:
            away.clear()
            raise DBAPIError("UPDATE", {}, Exception("closed"), connection_invalidated=True)
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
    outcomes = [Outcome(jobs[0], "success"), Outcome(jobs[1], REFUSED)]
    assert await asyncio.gather(*(recorder.finish(outcome) for outcome in outcomes)) == [True, True]
    assert [(await bench.row(job.id)).status for job in jobs] == ["success", "failed"]
    assert (recorder.stale, away) == (0, [])


async def test_what_even_a_failure_cannot_be_written_with_is_told_to_its_own_caller(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a driver that says nothing."""
    recorder = await bench.recorder()
    good, bad = await claimed_jobs(bench, recorder, 2)

    async def write(database: Database, worker_id: UUID, outcomes: Sequence[Outcome]) -> list[bool]:
        if any(outcome.claimed.id == bad.id for outcome in outcomes):
            raise DBAPIError("UPDATE", {}, Exception(""))
        return await write_outcomes(database, worker_id, outcomes)

    monkeypatch.setattr("worker.joblogs.recorder.write_outcomes", write)
    told = await asyncio.gather(
        *(recorder.finish(Outcome(job, "success")) for job in (good, bad)), return_exceptions=True
    )
    assert told[0] is True
    assert isinstance(told[1], DBAPIError)
    assert (await bench.row(good.id)).status == "success"


# Side by side


async def test_batches_that_overlap_in_opposite_order_never_deadlock_and_end_each_job_once(
    bench: Bench, other: Database
) -> None:
    one, two = await bench.recorder(), await bench.recorder()
    for turn in range(ROUNDS):
        of_one, of_two = await claimed_jobs(bench, one), await claimed_jobs(bench, two)
        jobs = random.Random(turn).sample(of_one + of_two, 2 * JOBS)
        batch = [Outcome(job, ("success", "failed")[place % 2]) for place, job in enumerate(jobs)]
        upwards, downwards, mixed, again = await asyncio.gather(
            write_outcomes(bench.database, one.worker_id, sorted(batch, key=by_id)),
            write_outcomes(other, two.worker_id, sorted(batch, key=by_id, reverse=True)),
            write_outcomes(bench.database, one.worker_id, batch),
            write_outcomes(other, two.worker_id, batch[::-1]),
        )
        written = zip(upwards, downwards[::-1], strict=True)
        late = dict(zip([o.claimed.id for o in batch], zip(mixed, again[::-1], strict=True), strict=True))
        for outcome, answers in zip(sorted(batch, key=by_id), written, strict=True):
            of_holder = outcome.claimed in of_two
            every = (answers, late[outcome.claimed.id])
            assert sum(each[of_holder] for each in every) == 1
            assert not any(each[not of_holder] for each in every)
    assert await counts(bench) == {"success": ROUNDS * JOBS, "failed": ROUNDS * JOBS}
    told = await ends_told(bench)
    assert (len(told), set(told.values())) == (2 * ROUNDS * JOBS, {1})


async def test_a_batch_beside_a_rescue_never_deadlocks_and_each_job_ends_once(
    bench: Bench, other: Database
) -> None:
    heir, rescued = await bench.recorder(), 0
    for turn in range(ROUNDS):
        recorder = await bench.recorder()
        jobs = await claimed_jobs(bench, recorder)
        batch = sorted((Outcome(job, "success") for job in jobs), key=by_id, reverse=bool(turn % 2))
        first, again, lost = await asyncio.gather(
            later(turn % 5 / 1000, write_outcomes(bench.database, recorder.worker_id, batch[: JOBS // 2])),
            later(turn % 5 / 1000, write_outcomes(bench.database, recorder.worker_id, batch[:1:-1])),
            later(turn % 3 / 1000, rescue_worker(other, recorder.worker_id, "said to be dead")),
        )
        inherited = await heir.poll(JOBS)
        written = [
            o.claimed.id for o, ok in zip(batch[: JOBS // 2] + batch[:1:-1], first + again, strict=True) if ok
        ]
        assert sorted(written + [job.id for job in inherited]) == sorted(job.id for job in jobs)
        assert lost == len(inherited)
        assert all(
            await write_outcomes(other, heir.worker_id, [Outcome(job, "success") for job in inherited])
        )
        rescued += lost
    assert await counts(bench) == {"success": ROUNDS * JOBS}
    told = await ends_told(bench)
    ended, lost_once = ROUNDS * JOBS, rescued
    assert Counter(kind for kind, _ in told.elements()) == Counter(
        {"job.succeeded": ended, "job.lost": lost_once}
    )
    assert set(told.values()) == {1}


# Afterwards


@pytest.mark.parametrize("end", ["success", "failed", "cancelled"])
@pytest.mark.parametrize("change", ["result = '2'", "result = 'null'", "result = NULL"])
async def test_the_database_itself_refuses_to_change_the_result_of_a_job_that_ended(
    bench: Bench, end: Any, change: str
) -> None:
    recorder = await bench.recorder()
    claimed = await bench.running(recorder)
    await recorder.finish(Outcome(claimed, end, result="1"))
    with pytest.raises(DBAPIError, match="terminal job does not change"):
        async with bench.database.transaction() as session:
            await session.execute(
                sa.text(f"UPDATE job_logs SET {change} WHERE id = :id"), {"id": key_of(bench, claimed.id)}
            )
    row = await bench.row(claimed.id)
    assert (row.status, row.result) == (end, 1)


def by_id(outcome: Outcome) -> UUID:
    return outcome.claimed.id


def key_of(bench: Bench, key: UUID) -> UUID | str:
    """An id as raw SQL has to write it."""
    return key if bench.database.dialect == "postgresql" else key.hex


async def later(seconds: float, work: Any) -> Any:
    await asyncio.sleep(seconds)
    return await work
