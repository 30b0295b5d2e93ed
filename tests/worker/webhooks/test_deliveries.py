"""A delivery's life: matched once, sent at least once, retried by its plan, recorded attempt by attempt."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from tests.worker.webhooks.conftest import START, Desk
from worker.db.base import new_id
from worker.process.models import Worker
from worker.webhooks import actions
from worker.webhooks.claims import claim
from worker.webhooks.courier import SLOW_S, Courier, Flight
from worker.webhooks.fairness import Room
from worker.webhooks.models import WebhookState
from worker.webhooks.retries import GIVE_UP_AFTER, GIVE_UP_FAILURES, Outcome

ROOM = Room(100, 20)


async def test_an_event_reaches_every_webhook_that_means_it_once(desk: Desk) -> None:
    one, other = await desk.create("one"), await desk.create("other", event="order.>")
    await desk.create("third", event="job.failed")
    event_id = await desk.deliver()
    await desk.match()
    assert await desk.send() == 0
    assert sorted(d.webhook_id for d in desk.receiver.got) == sorted([one.id, other.id])
    log = await desk.log(one)
    assert (log.status, log.event_id, log.event["event_id"], log.attempts) == (
        "success",
        event_id,
        event_id,
        1,
    )
    assert (log.response_code, log.response_body, log.error, log.ended_at) == (200, "ok", None, START)
    [attempt] = await desk.attempts(log)
    assert (attempt.number, attempt.trigger, attempt.outcome, attempt.status_code) == (
        1,
        "auto",
        "success",
        200,
    )
    assert (attempt.peer_ip, attempt.total_ms, attempt.next_attempt_at) == ("192.0.2.7", 12.5, None)


async def test_a_failure_is_retried_by_its_plan_with_the_same_bytes_and_then_fails(desk: Desk) -> None:
    hook = await desk.create(max_retries=2)
    desk.receiver.answers[hook.url] = 500
    await desk.deliver()
    waits = []
    for _ in range(2):
        log = await desk.log(hook)
        assert log.status == "retrying"
        assert await desk.send() == 0, "it is not due yet"
        waits.append((log.due_at - desk.now).total_seconds())
        desk.now = log.due_at
        await desk.send()
    log = await desk.log(hook)
    assert 12 <= waits[0] <= 18
    assert 48 <= waits[1] <= 72
    assert (log.status, log.attempts, log.body) == ("failed", 3, b"body of attempt 1")
    assert log.error == "the receiver answered 500, which is not 2xx"
    assert [d.body for d in desk.receiver.got] == [None, b"body of attempt 1", b"body of attempt 1"]
    assert [bool(a.next_attempt_at) for a in await desk.attempts(log)] == [True, True, False]


async def test_a_redirect_is_a_failure(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create(max_retries=0)
    sqlite_desk.receiver.answers[hook.url] = 302
    await sqlite_desk.deliver()
    log = await sqlite_desk.log(hook)
    assert (log.status, log.error_class, log.response_code) == ("failed", "redirect", 302)


async def test_a_receiver_that_asks_for_time_gets_nothing_until_then(desk: Desk) -> None:
    hook = await desk.create()
    desk.receiver.answers[hook.url] = Outcome(status_code=429, retry_after_s=600)
    await desk.deliver()
    desk.receiver.answers[hook.url] = 200
    await desk.deliver()
    assert desk.receiver.times(hook.url) == 1, "a new event waits as well"
    desk.later(seconds=601)
    assert await desk.send() == 2


async def test_gone_switches_the_webhook_off_at_once(desk: Desk) -> None:
    hook = await desk.create()
    desk.receiver.answers[hook.url] = 410
    await desk.deliver()
    log, row = await desk.log(hook), await desk.row(hook)
    assert (log.status, row.enabled, row.disabled_by) == ("failed", False, "engine")
    assert "410" in str(row.disabled_reason)
    [told] = [e for e in await desk.events() if e["event_type"] == "webhook.disabled"]
    assert told["data"]["webhook_id"] == str(hook.id)
    assert "410" in told["data"]["reason"]


async def test_five_days_of_only_failures_switch_it_off_and_one_success_begins_anew(desk: Desk) -> None:
    hook = await desk.create(max_retries=0)
    desk.receiver.answers[hook.url] = 500
    for _ in range(GIVE_UP_FAILURES - 1):
        await desk.deliver()
    desk.later(days=GIVE_UP_AFTER.days - 1)
    desk.receiver.answers[hook.url] = 204
    await desk.deliver()
    assert ((await desk.state(hook)).failures, (await desk.state(hook)).failing_since) == (0, None)
    desk.receiver.answers[hook.url] = 500
    for _ in range(GIVE_UP_FAILURES):
        await desk.deliver()
    assert (await desk.row(hook)).enabled
    desk.later(days=GIVE_UP_AFTER.days)
    await desk.deliver()
    assert not (await desk.row(hook)).enabled
    assert "5 days" in str((await desk.row(hook)).disabled_reason)


async def test_a_refused_address_fails_at_once_and_is_not_held_against_the_receiver(
    sqlite_desk: Desk,
) -> None:
    hook = await sqlite_desk.create()
    sqlite_desk.receiver.answers[hook.url] = Outcome(error_class="refused")
    await sqlite_desk.deliver()
    assert (await sqlite_desk.log(hook)).status == "failed"
    assert (await sqlite_desk.state(hook)).failures == 0


async def test_a_webhook_that_is_off_keeps_what_waits_and_sends_it_when_it_is_on_again(desk: Desk) -> None:
    hook = await desk.create()
    await desk.happen()
    await desk.match()
    await desk.do(actions.disable, hook.id, reason="their deploy")
    assert await desk.send() == 0
    log = await desk.do(actions.send_test, hook.id)
    assert await desk.send() == 1, "a test goes out all the same"
    assert [d.id for d in desk.receiver.got] == [log.id]
    await desk.do(actions.enable, hook.id)
    assert await desk.send() == 1
    assert {log.status for log in await desk.logs(hook)} == {"success"}


async def test_what_a_dead_courier_had_under_way_is_sent_by_another_and_costs_no_retry(desk: Desk) -> None:
    hook = await desk.create(max_retries=0)
    await desk.happen()
    await desk.match()
    dead = Courier(desk.database, desk.receiver)
    [held], _ = await claim(desk.database, dead.id, ROOM, (), lease_s=15)
    assert await desk.send() == 0, "its lease has not ended"
    desk.later(seconds=16)
    assert await desk.send() == 1
    log = await desk.log(hook)
    assert (log.status, log.attempts) == ("success", 2)
    assert [a.outcome for a in await desk.attempts(log)] == ["lost", "success"]
    assert held.epoch < log.epoch


async def test_what_an_ended_process_had_under_way_is_sent_at_once(desk: Desk) -> None:
    hook = await desk.create(max_retries=0)
    await desk.happen()
    await desk.match()
    process = Worker(id=new_id(), kind="clerk", host="here", pid=1, beat_at=desk.now, started_at=desk.now)
    async with desk.database.transaction() as session:
        session.add(process)
    await claim(desk.database, Courier(desk.database, desk.receiver, process_id=process.id).id, ROOM, (), 15)
    assert await desk.send() == 0
    await desk.put(Worker, Worker.id == process.id, ended_at=desk.now)
    assert await desk.send() == 1
    assert (await desk.log(hook)).status == "success"


async def test_a_result_that_comes_too_late_changes_nothing(desk: Desk) -> None:
    hook = await desk.create()
    answer = desk.receiver.answers[hook.url] = asyncio.get_running_loop().create_future()
    await desk.happen()
    await desk.match()
    slow = Courier(desk.database, desk.receiver)
    assert await slow() == 1
    while not desk.receiver.got:
        await asyncio.sleep(0)
    desk.receiver.answers[hook.url] = 200
    desk.later(seconds=16)
    await desk.send()
    answer.set_result(500)
    await slow.settle()
    log = await desk.log(hook)
    assert (log.status, log.response_code) == ("success", 200)
    assert [a.outcome for a in await desk.attempts(log)] == ["lost", "success"]


async def test_a_living_courier_keeps_its_leases(desk: Desk) -> None:
    hook = await desk.create()
    answer = desk.receiver.answers[hook.url] = asyncio.get_running_loop().create_future()
    await desk.happen()
    await desk.match()
    courier = Courier(desk.database, desk.receiver, lease_s=0)
    assert await courier() == 1
    desk.later(seconds=60)
    courier._lease_s, courier._renewed_at = 15, -100
    await courier()
    assert await desk.send() == 0
    answer.set_result(200)
    await courier.settle()
    assert [a.outcome for a in await desk.attempts(await desk.log(hook))] == ["success"]


async def test_a_courier_that_is_stopped_leaves_its_deliveries_due(desk: Desk, monkeypatch) -> None:
    monkeypatch.setattr("worker.webhooks.courier.END_S", 0)
    hook = await desk.create()
    desk.receiver.answers[hook.url] = asyncio.get_running_loop().create_future()
    await desk.happen()
    await desk.match()
    courier = Courier(desk.database, desk.receiver)
    await courier()
    await courier.stop()
    desk.receiver.answers[hook.url] = 200
    assert await desk.send() == 1
    assert (await desk.log(hook)).status == "success"


async def test_a_webhook_has_no_more_requests_at_once_than_it_wants_over_all_couriers(desk: Desk) -> None:
    hook = await desk.create(concurrency=3)
    answer = desk.receiver.answers[hook.url] = asyncio.get_running_loop().create_future()
    for _ in range(8):
        await desk.happen()
    await desk.match()
    other = Courier(desk.database, desk.receiver)
    assert [await desk.courier(), await other(), await desk.courier()] == [3, 0, 0]
    answer.set_result(200)
    await desk.courier.settle()
    await desk.send(other)
    assert (desk.receiver.most[hook.url], desk.receiver.times(hook.url)) == (3, 8)


async def test_a_rate_limit_holds_over_all_couriers(desk: Desk) -> None:
    hook = await desk.create(rate_per_s=2)
    for _ in range(10):
        await desk.happen()
    await desk.match()
    other = Courier(desk.database, desk.receiver)
    sent = []
    for _ in range(6):
        sent.append(await desk.send() + await desk.send(other))
        desk.later(seconds=1)
    assert sent == [2, 2, 2, 2, 2, 0]
    assert desk.receiver.times(hook.url) == 10


async def test_a_dead_endpoint_takes_no_room_from_a_live_one(sqlite_desk: Desk) -> None:
    """Every request of the dead ones hangs; with all of the room in their hands the live one is served at once."""
    desk = sqlite_desk
    never = asyncio.get_running_loop().create_future()
    dead = [await desk.create(f"dead-{n}", concurrency=50) for n in range(4)]
    live = await desk.create("live")
    for hook in dead:
        desk.receiver.answers[hook.url] = never
    for _ in range(60):
        await desk.happen()
    await desk.match()
    first = await desk.courier()
    assert first == 100
    await asyncio.sleep(0)
    assert desk.receiver.times(live.url) >= 10, "the room is shared in turn"
    for flight in desk.courier._flights.values():
        flight.since -= SLOW_S + 1
    while desk.receiver.times(live.url) < 60:
        await desk.courier()
        await asyncio.sleep(0.001)
    assert max(desk.receiver.times(hook.url) for hook in dead) <= 25, "slow ones get no more than they have"
    never.set_result(200)
    await desk.courier.settle()


async def test_doubtful_webhooks_share_a_small_room(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hooks = [await desk.create(f"failing-{n}") for n in range(3)]
    for _ in range(5):
        await desk.happen()
    await desk.match()
    await desk.put(WebhookState, sa.true(), failures=3, failing_since=desk.now)
    deliveries, doubtful = await claim(desk.database, desk.courier.id, Room(100, 4), (), 15)
    assert doubtful == {hook.id for hook in hooks}
    assert sorted(sum(d.webhook_id == h.id for d in deliveries) for h in hooks) == [1, 1, 2]


async def test_what_is_due_of_a_deleted_webhook_is_not_sent(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create()
    await sqlite_desk.happen()
    await sqlite_desk.match()
    await sqlite_desk.do(actions.delete, hook.id)
    assert await sqlite_desk.send() == 0
    await sqlite_desk.do(actions.restore, hook.id)
    assert await sqlite_desk.send() == 1


async def test_the_end_of_an_attempt_is_written_once_the_database_is_back(
    sqlite_desk: Desk, monkeypatch
) -> None:
    from worker.webhooks import courier as module

    monkeypatch.setattr(module, "AGAIN_S", 0)
    real, broken = module.finish, [OSError("away"), OSError("away")]

    async def finish(database, finished):
        if broken:
            raise broken.pop()
        return await real(database, finished)

    monkeypatch.setattr(module, "finish", finish)
    hook = await sqlite_desk.create()
    await sqlite_desk.deliver()
    assert (await sqlite_desk.log(hook)).status == "success"
    assert not broken


@pytest.mark.parametrize("status", ["success", "failed"])
async def test_couriers_announce_every_change_of_a_delivery(sqlite_desk: Desk, status: str) -> None:
    hook = await sqlite_desk.create(max_retries=0)
    sqlite_desk.receiver.answers[hook.url] = 200 if status == "success" else 500
    await sqlite_desk.deliver()
    await sqlite_desk.database.settle()
    log = await sqlite_desk.log(hook)
    assert log.status == status
    revs = [p.changes.get(("webhook_log", str(log.id))) for p in sqlite_desk.told]
    assert [rev for rev in revs if rev] == [1, 2, 3]
    assert log.rev == 3


def test_room_is_given_back_by_what_turns_out_to_be_slow() -> None:
    courier = Courier(None, None)  # type: ignore[arg-type]
    for n in range(100):
        courier._flights[new_id()] = Flight(courier.id, 1000.0 if n < 60 else 1000.0 - SLOW_S - 1, False)
    assert courier._room(1000.0).sound == 40
