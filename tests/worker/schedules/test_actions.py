"""What people and programs do with schedules: checked as a whole, told, audited, and never half done."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.worker.schedules.conftest import ADA, Desk
from tests.worker.schedules.oracle import utc
from worker.accounts.models import AuditEntry
from worker.db.base import utc_now
from worker.errors import ChangedMeanwhile, Invalid, NotFound, OwnedByCode
from worker.schedules import actions, backfill
from worker.schedules.ensure import ensure

NOON = utc(2026, 3, 1, 12)
HOUR = timedelta(hours=1)


async def test_a_new_schedule_is_due_at_its_next_instant(desk: Desk) -> None:
    made = await desk.create("30 2 * * *", time_zone="Europe/Warsaw", args={"n": 1})
    assert made.next_fire_at == made.rule.next(made.created_at)
    assert (made.missed, made.overlap, made.catch_up_s, made.version) == ("latest", "skip", 86_400, 1)


async def test_every_mistake_is_named_at_once(desk: Desk) -> None:
    with pytest.raises(Invalid) as refused:
        await desk.create(
            "61 * * * *", name="", function="nothing", time_zone="Mars/Base", missed="never", overlap="maybe",
            jitter_s=-1, catch_up_s=10**9, priority=11, queue="NO", start_at=NOON, end_at=NOON,
        )  # fmt: skip
    assert set(refused.value.problems) == {
        "name", "function", "cron_expression", "time_zone", "missed", "overlap", "jitter_s", "catch_up_s", "priority",
        "queue", "end_at",
    }  # fmt: skip


async def test_arguments_are_those_of_the_function(desk: Desk) -> None:
    with pytest.raises(Invalid) as refused:
        await desk.create(args={"bad": 1})
    assert refused.value.problems == {"args.bad": "it is not allowed"}
    made = await desk.create()
    with pytest.raises(Invalid):
        await desk.do(actions.edit, made.id, {"args": {"bad": 1}})


async def test_a_name_belongs_to_one_schedule(desk: Desk) -> None:
    first = await desk.create(name="report")
    with pytest.raises(Invalid, match="taken"):
        await desk.create(name="report")
    second = await desk.create(name="other")
    with pytest.raises(Invalid, match="taken"):
        await desk.do(actions.edit, second.id, {"name": "report"})
    await desk.do(actions.delete, first.id)
    assert (await desk.create(name="report")).name == "report"
    assert (await desk.do(actions.restore, first.id)).name == "report restored"


async def test_an_edit_moves_the_next_instant_and_keeps_what_it_does_not_name(desk: Desk) -> None:
    made = await desk.create(args={"n": 1})
    edited = await desk.do(actions.edit, made.id, {"cron_expression": "0 0 1 1 *", "missed": "all"})
    assert edited.next_fire_at is not None
    assert (edited.next_fire_at.month, edited.next_fire_at.day) == (1, 1)
    assert (edited.args, edited.missed, edited.overlap, edited.version) == ({"n": 1}, "all", "skip", 2)
    unmoved = await desk.do(actions.edit, made.id, {"args": {"n": 2}})
    assert unmoved.next_fire_at == edited.next_fire_at


async def test_who_saw_an_older_version_changes_nothing(desk: Desk) -> None:
    made = await desk.create()
    await desk.do(actions.edit, made.id, {"missed": "all"}, version=1)
    with pytest.raises(ChangedMeanwhile) as refused:
        await desk.do(actions.edit, made.id, {"missed": "skip"}, version=1)
    assert "version 2 now" in str(refused.value)
    assert (await desk.row(made.id)).missed == "all"


async def test_a_fire_does_not_spoil_an_edit_that_is_under_way(desk: Desk) -> None:
    made = await desk.due(NOON - HOUR)
    await desk.tick(NOON)
    assert (await desk.do(actions.edit, made.id, {"missed": "all"}, version=made.version)).missed == "all"


async def test_switched_off_it_is_not_due_and_switched_on_it_does_not_catch_up(desk: Desk) -> None:
    made = await desk.due(NOON - HOUR)
    assert (await desk.do(actions.disable, made.id)).next_fire_at is None
    assert await desk.tick(NOON + 9 * HOUR) == 0
    back = await desk.do(actions.enable, made.id)
    assert back.next_fire_at is not None
    assert back.next_fire_at > utc_now()
    assert await desk.fires(made.id) == []


async def test_a_pause_has_a_reason_and_lasts_until_it_is_resumed(desk: Desk) -> None:
    made = await desk.create()
    paused = await desk.do(actions.pause, made.id, reason="mail is down")
    assert (paused.next_fire_at, paused.pause_reason, paused.paused_by) == (None, "mail is down", "ada")
    resumed = await desk.do(actions.resume, made.id)
    assert (resumed.paused_at, resumed.pause_reason) == (None, None)
    assert resumed.next_fire_at is not None
    with pytest.raises(Invalid, match="past"):
        await desk.do(actions.pause, made.id, until=NOON - timedelta(days=999))
    with pytest.raises(Invalid, match="500"):
        await desk.do(actions.pause, made.id, reason="x" * 501)


async def test_many_are_paused_at_once_and_those_that_are_gone_are_left_out(desk: Desk) -> None:
    made = [await desk.create(name=f"s{n}") for n in range(3)]
    async with desk.database.transaction() as session:
        wanted = [*(one.id for one in made[:2]), uuid4()]
        assert len(await actions.pause_many(session, wanted, reason="move", actor=ADA)) == 2
    assert [(await desk.row(one.id)).paused_at is not None for one in made] == [True, True, False]


async def test_run_now_starts_a_job_and_leaves_the_next_instant(desk: Desk) -> None:
    made = await desk.create(args={"n": 1})
    await desk.do(actions.pause, made.id)
    job = await desk.do(actions.run_now, made.id)
    row, [fire] = await desk.row(made.id), await desk.fires(made.id)
    assert (job.args, job.scheduled_job_id, job.user_id) == ({"n": 1}, made.id, "ada")
    assert (fire.kind, fire.outcome, fire.job_id, fire.user_id) == ("manual", "enqueued", job.id, "ada")
    assert (row.next_fire_at, row.last_job_id) == (None, job.id)


async def test_a_copy_is_peoples_own_and_off(desk: Desk) -> None:
    made = await desk.create(name="report", args={"n": 1}, jitter_s=5)
    copy = await desk.do(actions.duplicate, made.id)
    assert (copy.name, copy.args, copy.jitter_s, copy.enabled) == ("report copy", {"n": 1}, 5, False)
    assert (await desk.do(actions.duplicate, made.id)).name == "report copy 2"


async def test_a_deleted_schedule_is_gone_until_it_is_restored_and_keeps_its_history(desk: Desk) -> None:
    made = await desk.due(NOON - HOUR)
    await desk.tick(NOON)
    await desk.do(actions.delete, made.id)
    assert await desk.tick(NOON + 9 * HOUR) == 0
    with pytest.raises(NotFound):
        await desk.do(actions.edit, made.id, {"missed": "all"})
    back = await desk.do(actions.restore, made.id)
    assert back.next_fire_at is not None
    assert len(await desk.fires(made.id)) == 1
    with pytest.raises(NotFound):
        await desk.do(actions.restore, made.id)


async def test_what_code_owns_is_not_deleted_here(desk: Desk) -> None:
    made = await desk.create()
    await desk.put(made.id, code_key="add", module="acme.jobs")
    with pytest.raises(OwnedByCode, match=r"acme\.jobs"):
        await desk.do(actions.delete, made.id)


async def test_two_edits_at_once_are_both_whole(desk: Desk) -> None:
    made = await desk.create()
    changes = [{"jitter_s": 1.0}, {"catch_up_s": 60}, {"missed": "all"}, {"overlap": "allow"}]
    await asyncio.gather(*(desk.do(actions.edit, made.id, change) for change in changes))
    row = await desk.row(made.id)
    assert (row.jitter_s, row.catch_up_s, row.missed, row.overlap, row.version) == (1, 60, "all", "allow", 5)


async def test_every_change_is_audited_and_told(desk: Desk) -> None:
    made = await desk.create()
    await desk.do(actions.edit, made.id, {"missed": "all"})
    await desk.do(actions.pause, made.id)
    await desk.do(actions.resume, made.id)
    await desk.do(actions.run_now, made.id)
    await desk.do(actions.delete, made.id)
    told = [event["event_type"] for event in await desk.events()]
    assert told == [
        "schedule.created", "schedule.changed", "schedule.paused", "schedule.resumed", "schedule.fired",
        "schedule.deleted",
    ]  # fmt: skip
    async with desk.database.session() as session:
        entries = (
            await session.scalars(sa.select(AuditEntry).where(AuditEntry.object_type == "schedule"))
        ).all()
    assert len(entries) == 6
    changed = next(entry for entry in entries if entry.action == "schedule.changed")
    assert (changed.before, changed.after, changed.actor) == ({"missed": "latest"}, {"missed": "all"}, "ada")


async def test_asking_for_the_same_schedule_again_gives_the_one_that_is_there(desk: Desk) -> None:
    async def ask(cron: str, args: dict[str, int]) -> object:
        async with desk.database.transaction() as session:
            return (await ensure(session, "add", cron, args, actor=ADA)).id

    first = await ask("0 9 * * *", {"n": 1})
    assert await ask(" 0  9 * * * ", {"n": 1}) == first
    assert len({first, await ask("0 9 * * *", {"n": 2}), await ask("0 8 * * *", {"n": 1})}) == 3
    assert len(set(await asyncio.gather(*(ask("5 5 * * *", {}) for _ in range(5))))) == 1


# Backfill


async def test_a_backfill_runs_what_did_not_run_and_nothing_twice(desk: Desk) -> None:
    made = await desk.due(NOON - HOUR - timedelta(seconds=1), missed="skip", overlap="allow")
    await desk.tick(NOON - HOUR + timedelta(seconds=1))
    await desk.tick(NOON + 2 * HOUR + timedelta(minutes=1))
    async with desk.database.session() as session:
        plan = await backfill.plan(session, made.id, made.rule, NOON - 3 * HOUR, NOON + 2 * HOUR, utc_now())
    assert [f"{at:%H}" for at in plan.to_run] == ["09", "10", "12", "13", "14"]
    assert [f"{at:%H}" for at in plan.ran] == ["11"]
    done = await desk.do(backfill.backfill, made.id, NOON - 3 * HOUR, NOON + 2 * HOUR)
    assert len(done.job_ids) == 5
    assert done.left_out == 1
    again = await desk.do(backfill.backfill, made.id, NOON - 3 * HOUR, NOON + 2 * HOUR)
    assert (again.job_ids, again.left_out) == ((), 6)
    assert {outcome for _, outcome in await desk.outcomes(made.id)} == {"enqueued"}
    assert [job.run_at for job in await desk.jobs(made.id)] == [NOON + (n - 3) * HOUR for n in range(6)]


async def test_a_backfill_that_is_too_long_or_lies_ahead_is_refused(desk: Desk) -> None:
    made = await desk.create("* * * * *")
    for since, until, field in (
        (NOON - timedelta(days=30), NOON, "until"),
        (NOON, utc_now() + HOUR, "until"),
        (NOON, NOON - HOUR, "since"),
        (NOON.replace(tzinfo=None), NOON, "since"),
    ):
        with pytest.raises(Invalid) as refused:
            await desk.do(backfill.backfill, made.id, since, until)
        assert set(refused.value.problems) == {field}
    assert await desk.fires(made.id) == []
