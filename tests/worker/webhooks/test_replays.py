"""Sending again: one delivery, or a planned batch of what a filter means."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from tests.worker.webhooks.conftest import OTTO, VERA, Desk
from worker.db.base import new_id
from worker.errors import DeliveryBusy, Denied, Invalid, NotFound, ReplayEnded, WebhookOff
from worker.webhooks import actions, replays
from worker.webhooks.filters import checked
from worker.webhooks.models import WebhookReplay


async def failed(desk: Desk, count: int = 1, name: str = "hook"):
    """A webhook whose first deliveries have failed, and answers from now on."""
    hook = await desk.create(name, max_retries=0)
    desk.receiver.answers[hook.url] = 500
    for _ in range(count):
        await desk.happen()
    await desk.match()
    await desk.send()
    desk.receiver.answers[hook.url] = 200
    return hook


async def batch(desk: Desk, replay_id: UUID) -> WebhookReplay:
    async with desk.database.session() as session:
        found = await session.get(WebhookReplay, replay_id)
        assert found is not None
        return found


async def test_a_delivery_that_is_replayed_is_a_new_attempt_of_the_same_delivery(desk: Desk) -> None:
    hook = await failed(desk)
    before = await desk.log(hook)
    await desk.do(replays.replay, before.id, actor=OTTO)
    await desk.send()
    log = await desk.log(hook)
    assert (log.id, log.event_id, log.status, log.attempts) == (before.id, before.event_id, "success", 2)
    assert [(a.trigger, a.user_id) for a in await desk.attempts(log)] == [("auto", None), ("manual", "otto")]
    assert (before.body, log.body) == (b"body of attempt 1", b"body of attempt 2"), "it is rendered anew"


async def test_a_replayed_delivery_begins_its_plan_of_retries_anew(desk: Desk) -> None:
    hook = await desk.create(max_retries=1)
    desk.receiver.answers[hook.url] = 500
    await desk.deliver()
    desk.later(minutes=1)
    await desk.send()
    log = await desk.log(hook)
    assert (log.status, log.attempts) == ("failed", 2)
    await desk.do(replays.replay, log.id)
    await desk.send()
    log = await desk.log(hook)
    assert (log.status, log.attempts, log.next_trigger) == ("retrying", 3, "auto")


async def test_a_success_may_be_sent_again_too(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create()
    await sqlite_desk.deliver()
    await sqlite_desk.do(replays.replay, (await sqlite_desk.log(hook)).id)
    assert await sqlite_desk.send() == 1


async def test_what_cannot_be_sent_again_says_why(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    with pytest.raises(NotFound):
        await desk.do(replays.replay, new_id())
    hook = await failed(desk)
    log = await desk.log(hook)
    with pytest.raises(Denied):
        await desk.do(replays.replay, log.id, actor=VERA)
    await desk.do(replays.replay, log.id)
    with pytest.raises(DeliveryBusy, match="is pending"):
        await desk.do(replays.replay, log.id)
    await desk.send()
    await desk.do(actions.disable, hook.id)
    with pytest.raises(WebhookOff, match="'hook' is switched off"):
        await desk.do(replays.replay, log.id)
    await desk.do(actions.delete, hook.id)
    with pytest.raises(NotFound):
        await desk.do(replays.replay, log.id)


async def test_a_batch_sends_what_its_filter_means_at_its_rate(desk: Desk) -> None:
    hook, other = await failed(desk, 12), await failed(desk, 1, "other")
    wanted = {"webhook_id": str(hook.id), "status": "failed", "event": "order.*"}
    async with desk.database.read() as connection:
        seen = await replays.preview(connection, wanted, rate_per_s=4, cutoff=desk.now)
    assert (seen.matching, seen.later, seen.takes_s) == (12, 0, 3)
    planned = await desk.do(replays.start, wanted, rate_per_s=4, actor=OTTO)
    steps = []
    for _ in range(8):
        steps.append((await desk.replay(), await desk.send()))
        desk.later(seconds=0.5)
    assert steps == [(1, 2)] * 6 + [(1, 0), (0, 0)]
    done = await batch(desk, planned.id)
    assert (done.status, done.total, done.done, done.refused) == ("done", 12, 12, 0)
    assert {log.status for log in await desk.logs(hook)} == {"success"}
    assert (await desk.log(other)).status == "failed"
    attempts = await desk.attempts((await desk.logs(hook))[0])
    assert (attempts[-1].trigger, attempts[-1].user_id) == ("replay", "otto")


async def test_what_comes_after_the_plan_is_left_out(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await failed(desk)
    cutoff = desk.now
    desk.later(seconds=1)
    desk.receiver.answers[hook.url] = 500
    await desk.deliver()
    async with desk.database.read() as connection:
        seen = await replays.preview(connection, {"status": "failed"}, cutoff=cutoff)
    assert (seen.matching, seen.later) == (1, 1)
    planned = await desk.do(replays.start, {"status": "failed"}, cutoff=cutoff)
    for _ in range(3):
        await desk.replay()
        desk.later(seconds=1)
    assert (await batch(desk, planned.id)).done == 1


async def test_a_batch_is_stopped_before_its_next_step(desk: Desk) -> None:
    hook = await failed(desk, 5)
    planned = await desk.do(replays.start, {"webhook_id": str(hook.id)}, rate_per_s=2)
    await desk.replay()
    await desk.do(replays.stop, planned.id, actor=OTTO)
    await desk.replay()
    await desk.send()
    ended = await batch(desk, planned.id)
    assert (ended.status, ended.total, ended.done) == ("stopped", 5, 1)
    with pytest.raises(ReplayEnded, match="is stopped"):
        await desk.do(replays.stop, planned.id)
    assert [log.status for log in await desk.logs(hook)].count("success") == 1


async def test_what_a_batch_cannot_send_is_counted_with_the_reason(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await failed(desk, 2)
    await desk.do(actions.disable, hook.id)
    planned = await desk.do(replays.start, {"status": "failed"})
    for _ in range(3):
        await desk.replay()
        desk.later(seconds=1)
    ended = await batch(desk, planned.id)
    assert (ended.status, ended.done, ended.refused) == ("done", 0, 2)
    assert "switched off" in ended.refusals[0]["why"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "filter"),
        ({"status": "lost"}, "status"),
        ({"webhook_id": "x"}, "webhook_id"),
        ({"event": "a..b"}, "event"),
        ({"event": "*.b.>"}, "event"),
        ({"response_code": "5xx"}, "response_code"),
        ({"response_code": 99}, "response_code"),
        ({"after": "yesterday"}, "after"),
        ({"after": "2026-11-22T09:00:00"}, "after"),
        ({"ids": ["x"]}, "ids"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_filter_is_named_and_nothing_is_planned(
    sqlite_desk: Desk, wanted: dict, field: str
) -> None:
    with pytest.raises(Invalid) as error:
        await sqlite_desk.do(replays.start, wanted)
    assert list(error.value.problems) == [field]


async def test_a_rate_that_is_not_allowed_is_named(sqlite_desk: Desk) -> None:
    with pytest.raises(Invalid, match="rate_per_s"):
        await sqlite_desk.do(replays.start, {"status": "failed"}, rate_per_s=0)


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("order.placed", {"order.placed"}),
        ("order.*", {"order.placed", "order.p_aid"}),
        ("order.>", {"order.placed", "order.p_aid", "order.line.added"}),
        ("*.line.*", {"order.line.added"}),
        ("order.p_aid", {"order.p_aid"}),
    ],
)
async def test_a_filters_pattern_means_what_webhooks_mean(desk: Desk, pattern: str, meant: set[str]) -> None:
    import sqlalchemy as sa

    from worker.webhooks.filters import conditions
    from worker.webhooks.models import WebhookLog

    hook = await desk.create(event=">", enabled=True)
    for name in ("order.placed", "order.p_aid", "order.line.added", "order.pxaid.late", "orders"):
        await desk.happen(name)
    await desk.match()
    async with desk.database.read() as connection:
        where = conditions(checked({"event": pattern, "webhook_id": str(hook.id)}))
        found = set((await connection.execute(sa.select(WebhookLog.event_type).where(*where))).scalars())
    if pattern == "order.>":
        meant = meant | {"order.pxaid.late"}
    assert found == meant


async def test_filters_by_time_code_and_ids_hold_together(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await failed(desk, 2)
    [first, second] = await desk.logs(hook)
    wanted = {
        "response_code": "500", "error_class": "status", "ids": [str(first.id)],
        "after": desk.now.isoformat(), "before": (desk.now + timedelta(seconds=1)).isoformat(),
    }  # fmt: skip
    async with desk.database.read() as connection:
        assert (await replays.preview(connection, wanted, cutoff=desk.now)).matching == 1
        late = {**wanted, "before": desk.now.isoformat()}
        assert (await replays.preview(connection, late, cutoff=desk.now)).matching == 0
    assert first.id != second.id
