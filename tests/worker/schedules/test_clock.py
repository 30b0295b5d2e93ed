"""A fire is one transaction: the instant is recorded, the job inserted, the next instant set, or nothing at all."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.worker.schedules.conftest import ADA, Desk
from tests.worker.schedules.oracle import utc
from worker.joblogs import actions as jobs
from worker.joblogs.enqueue import Reception
from worker.schedules import actions, clock

NOON = utc(2026, 3, 1, 12)
HOUR = timedelta(hours=1)
BEFORE = NOON - timedelta(seconds=1)


async def test_a_due_instant_becomes_a_job_once(desk: Desk) -> None:
    made = await desk.due(BEFORE, args={"n": 1}, queue="mail", priority=2)
    assert await desk.tick(BEFORE) == 0
    assert await desk.tick(NOON) == 1
    assert await desk.tick(NOON + timedelta(minutes=5)) == 0
    [job] = await desk.jobs(made.id)
    [fire] = await desk.fires(made.id)
    assert (job.job_name, job.args, job.queue, job.priority, job.status) == (
        "add",
        {"n": 1},
        "mail",
        2,
        "queued",
    )
    assert (job.run_at, fire.fire_at, fire.outcome, fire.job_id) == (NOON, NOON, "enqueued", job.id)
    row = await desk.row(made.id)
    assert (row.next_fire_at, row.last_fire_at, row.last_job_id) == (NOON + HOUR, NOON, job.id)


async def test_a_fire_is_told_with_the_job(desk: Desk) -> None:
    made = await desk.due(BEFORE)
    await desk.tick(NOON)
    await desk.database.settle()
    [created, fired] = await desk.events()
    assert (created["event_type"], fired["event_type"]) == ("schedule.created", "schedule.fired")
    assert fired["data"]["schedule_id"] == str(made.id)
    assert "args" not in fired["data"]
    told = desk.told[-1]
    assert ("schedule", str(made.id)) in told.changes
    assert len(told.rings) == 1


async def test_many_clocks_at_once_decide_each_instant_once(desk: Desk) -> None:
    made = [await desk.due(BEFORE, name=f"s{n}", overlap="allow") for n in range(20)]
    for look in range(5):
        at = NOON + look * HOUR
        await asyncio.gather(*(clock.fire_due(desk.database, at) for _ in range(6)))
        await desk.tick(at)
    for one in made:
        assert [outcome for _, outcome in await desk.outcomes(one.id)] == ["enqueued"] * 5
        assert len(await desk.jobs(one.id)) == 5


async def test_an_instant_that_somebody_decided_already_does_not_run_again(desk: Desk) -> None:
    made = await desk.due(BEFORE, overlap="allow")
    await desk.tick(NOON)
    await desk.put(made.id, next_fire_at=NOON)
    await desk.tick(NOON)
    assert len(await desk.jobs(made.id)) == 1
    assert (await desk.row(made.id)).next_fire_at == NOON + HOUR


async def test_what_fails_in_the_middle_leaves_nothing_behind(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await desk.due(BEFORE)
    monkeypatch.setattr(clock, "_move_on", _broken)
    with pytest.raises(RuntimeError):
        await clock.fire_due(desk.database, NOON)
    assert await desk.fires(made.id) == []
    assert await desk.jobs(made.id) == []
    monkeypatch.undo()
    await desk.tick(NOON)
    assert len(await desk.jobs(made.id)) == 1


async def _broken(*_: object) -> None:
    raise RuntimeError("the database went away")


@pytest.mark.parametrize(
    ("missed", "outcomes"),
    [
        ("skip", ["missed", "missed", "missed"]),
        ("latest", ["missed", "missed", "enqueued"]),
        ("all", ["enqueued", "enqueued", "enqueued"]),
    ],
)
async def test_after_a_time_without_a_clock(desk: Desk, missed: str, outcomes: list[str]) -> None:
    made = await desk.due(BEFORE, missed=missed, overlap="allow")
    await desk.tick(NOON + 2.5 * HOUR)
    assert [outcome for _, outcome in await desk.outcomes(made.id)] == outcomes
    assert len(await desk.jobs(made.id)) == outcomes.count("enqueued")
    types = [event["event_type"] for event in await desk.events()]
    assert types.count("schedule.missed") == outcomes.count("missed")


async def test_a_clock_that_is_set_back_neither_repeats_nor_leaves_out(desk: Desk) -> None:
    made = await desk.due(BEFORE, overlap="allow")
    for at in (NOON, NOON + 3 * HOUR, NOON + HOUR, NOON + 2 * HOUR, NOON + 4 * HOUR):
        await desk.tick(at)
    told = [at for at, _ in await desk.outcomes(made.id)]
    assert told == [f"01 {12 + n}:00:00" for n in range(5)]


async def test_a_run_that_has_not_ended_holds_back_the_next(desk: Desk) -> None:
    made = await desk.due(BEFORE)
    await desk.tick(NOON)
    await desk.tick(NOON + HOUR)
    [first] = await desk.jobs(made.id)
    async with desk.database.transaction() as session:
        await jobs.cancel(session, first.id, actor=ADA)
    await desk.tick(NOON + 2 * HOUR)
    assert [outcome for _, outcome in await desk.outcomes(made.id)] == [
        "enqueued",
        "skipped_overlap",
        "enqueued",
    ]


async def test_overlap_may_be_allowed(desk: Desk) -> None:
    made = await desk.due(BEFORE, overlap="allow")
    for hour in range(3):
        await desk.tick(NOON + hour * HOUR)
    assert [job.status for job in await desk.jobs(made.id)] == ["queued"] * 3


async def test_the_run_before_may_be_cancelled(desk: Desk) -> None:
    made = await desk.due(BEFORE, overlap="cancel_running", missed="all")
    await desk.tick(NOON)
    await desk.tick(NOON + HOUR)
    assert [job.status for job in await desk.jobs(made.id)] == ["cancelled", "queued"]
    await desk.tick(NOON + 4 * HOUR)
    assert [outcome for _, outcome in await desk.outcomes(made.id)][2:] == ["skipped_overlap"] * 2 + [
        "enqueued"
    ]


async def test_jitter_moves_the_job_never_the_instant(desk: Desk) -> None:
    made = await desk.due(BEFORE, jitter_s=600)
    await desk.tick(NOON)
    [job], [fire] = await desk.jobs(made.id), await desk.fires(made.id)
    assert fire.fire_at == NOON
    assert NOON <= job.run_at <= NOON + timedelta(seconds=600)


async def test_a_job_that_cannot_be_accepted_is_a_refused_fire_and_the_others_run(desk: Desk) -> None:
    bad = await desk.due(BEFORE, name="bad", function="mail")
    good = await desk.due(BEFORE, name="good")
    del desk.offers.known["mail"]
    await desk.tick(NOON)
    [fire] = await desk.fires(bad.id)
    assert (fire.outcome, fire.job_id) == ("refused", None)
    assert "mail" in (fire.detail or "")
    assert len(await desk.jobs(good.id)) == 1
    assert (await desk.row(bad.id)).next_fire_at == NOON + HOUR
    [missed] = [event for event in await desk.events() if event["event_type"] == "schedule.missed"]
    assert missed["data"]["outcome"] == "refused"


async def test_a_full_queue_is_said_and_the_schedule_goes_on(desk: Desk) -> None:
    made = await desk.due(BEFORE)
    reception: Reception = desk.database.info["reception"]
    reception.depths["default"] = (float("inf"), reception.settings.queue_max_depth)
    await desk.tick(NOON)
    [fire] = await desk.fires(made.id)
    assert fire.outcome == "refused"
    assert "limit" in (fire.detail or "")
    assert (await desk.row(made.id)).next_fire_at == NOON + HOUR


async def test_a_schedule_that_cannot_be_read_does_not_hold_up_the_others(desk: Desk) -> None:
    broken = await desk.due(BEFORE, name="broken")
    good = await desk.due(BEFORE, name="good")
    await desk.put(broken.id, time_zone="Mars/Base")
    await desk.tick(NOON)
    assert len(await desk.jobs(good.id)) == 1
    assert (await desk.row(broken.id)).next_fire_at is None


async def test_a_pause_with_an_end_ends_by_itself(desk: Desk) -> None:
    made = await desk.create()
    later = made.next_fire_at + 3 * HOUR - timedelta(minutes=30) if made.next_fire_at else None
    paused = await desk.do(actions.pause, made.id, reason="holidays", until=later)
    assert later is not None
    assert paused.next_fire_at == later + timedelta(minutes=30)
    await desk.tick(paused.next_fire_at)
    row = await desk.row(made.id)
    assert (row.paused_at, row.paused_until, row.pause_reason) == (None, None, None)
    assert "schedule.resumed" in [event["event_type"] for event in await desk.events()]
    assert len(await desk.jobs(made.id)) == 1


async def test_nothing_is_due_after_the_end(desk: Desk) -> None:
    start = utc(2099, 1, 1, 10)
    made = await desk.due(BEFORE, start_at=start, end_at=start + HOUR, missed="all", overlap="allow")
    await desk.tick(start + 5 * HOUR)
    assert [at for at, _ in await desk.outcomes(made.id)] == ["01 10:00:00", "01 11:00:00"]
    assert (await desk.row(made.id)).next_fire_at is None
