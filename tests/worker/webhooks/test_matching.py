"""Which events reach which webhooks, and what is said of those that do not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.worker.webhooks.conftest import START, Desk
from worker.db.base import new_id
from worker.events.takers import hand_over
from worker.webhooks import actions
from worker.webhooks.matching import Subscription, held_back, is_about, judged, meant
from worker.webhooks.sandbox import BLAMED_S, Verdict
from worker.webhooks.taker import STRIKES

ME = new_id()


def hook(**fields) -> Subscription:
    values = {
        "id": ME, "name": "hook", "event": "doc.*", "doctype_filter": None, "condition": None, "enabled": True, "disabled_reason": None,
        "created_at": START,
    } | fields  # fmt: skip
    return Subscription(**values)


@pytest.mark.parametrize(
    ("wants", "event", "reason"),
    [
        ({}, {"event_type": "doc.created"}, None),
        ({}, {"event_type": "job.failed"}, "pattern"),
        ({"event": "job.>"}, {"event_type": "job.failed"}, None),
        ({"doctype_filter": "Invoice"}, {"event_type": "doc.created", "doctype": "Invoice"}, None),
        ({"doctype_filter": "Invoice"}, {"event_type": "doc.created", "doctype": "Todo"}, "doctype"),
        ({"doctype_filter": "Invoice"}, {"event_type": "doc.created"}, "doctype"),
    ],
)
def test_pattern_and_doctype_decide_first(wants: dict, event: dict, reason: str | None) -> None:
    why = meant(hook(**wants), event)
    assert (why.reason if why else None) == reason


@pytest.mark.parametrize(
    ("event", "about"),
    [
        ({"event_type": "webhook.disabled", "data": {"webhook_id": str(ME)}}, True),
        ({"event_type": "webhook.disabled", "data": {"webhook_id": str(new_id())}}, False),
        ({"event_type": "doc.updated", "doctype": "Webhook", "doc_id": str(ME)}, True),
        ({"event_type": "doc.updated", "doctype": "Todo", "doc_id": str(ME)}, False),
        ({"event_type": "job.failed"}, False),
    ],
)
def test_a_webhook_is_never_told_of_itself(event: dict, about: bool) -> None:
    assert is_about(ME, event) == about
    why = held_back(hook(event=">"), event)
    assert (why is not None and why.reason == "own") == about


def test_why_not_names_the_part_and_the_value_that_decided() -> None:
    event = {"event_type": "doc.created", "data": {}}
    before = held_back(hook(), event, START - timedelta(seconds=1))
    off = held_back(hook(enabled=False, disabled_reason="their deploy"), event, START)
    assert (before and before.reason, off and (off.reason, off.detail)) == (
        "later",
        ("disabled", "their deploy"),
    )
    false = judged(hook(condition="data.amount > `5`"), Verdict(False, value="null"))
    broken = judged(hook(condition="x"), Verdict(False, error="it is no number"))
    assert false
    assert (false.reason, false.detail) == ("condition", "data.amount > `5` is null")
    assert broken
    assert (broken.reason, broken.detail) == ("error", "it is no number")
    assert judged(hook(condition="x"), Verdict(True)) is None


async def test_a_condition_decides_and_its_verdict_is_kept(desk: Desk) -> None:
    wants = await desk.create(condition="big")
    await desk.deliver(word="big")
    await desk.deliver(word="small")
    assert len(await desk.logs(wants)) == 1
    assert await desk.misses(wants) == [("condition", "big is small")]


async def test_a_condition_is_asked_outside_the_transaction_once_for_each_event(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    for n in range(3):
        await desk.create(f"hook-{n}", condition="big")
    await desk.deliver(word="big")
    assert desk.conditions.judged == 1
    assert len(await desk.logs()) == 3


async def test_a_condition_that_is_changed_meanwhile_is_asked_again(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    wants = await desk.create(condition="big")
    real = desk.conditions.condition

    async def condition(expression: str, event):
        desk.conditions.condition = real
        await desk.edit(wants.id, condition="small")
        return await real(expression, event)

    desk.conditions.condition = condition
    await desk.deliver(word="big")
    assert await desk.logs(wants) == []
    assert await desk.misses(wants) == [("condition", "small is big")]


async def test_a_condition_that_is_killed_again_and_again_switches_its_webhook_off(desk: Desk) -> None:
    slow, fine = await desk.create("slow", condition="kill"), await desk.create("fine")
    for _ in range(STRIKES):
        assert (await desk.row(slow)).enabled
        for _ in range(3):
            await desk.happen()
        await desk.match()
        desk.later(seconds=BLAMED_S)
    row = await desk.row(slow)
    assert (row.enabled, row.disabled_by) == (False, "engine")
    assert "500 ms" in str(row.disabled_reason)
    assert len(await desk.logs(fine)) == STRIKES * 3
    assert [reason for reason, _ in await desk.misses(slow)] == ["error"] * 6 + ["disabled"] * 3


async def test_a_condition_that_cannot_be_evaluated_is_a_miss_with_the_reason(sqlite_desk: Desk) -> None:
    wants = await sqlite_desk.create(condition="wrong")
    await sqlite_desk.deliver()
    assert await sqlite_desk.misses(wants) == [("error", "it compares a number with a list")]


async def test_a_webhook_is_not_told_of_what_happened_before_it_was_made(desk: Desk) -> None:
    await desk.happen()
    desk.now += timedelta(days=3650)  # outbox rows carry the process's own time
    wants = await desk.create()
    await desk.match()
    assert await desk.logs(wants) == []
    assert [reason for reason, _ in await desk.misses(wants)] == ["later"]


async def test_a_webhook_that_is_off_is_told_of_nothing_and_it_is_noted(desk: Desk) -> None:
    wants = await desk.create()
    await desk.do(actions.disable, wants.id, reason="their deploy")
    await desk.deliver()
    assert await desk.logs(wants) == []
    assert await desk.misses(wants) == [("disabled", "their deploy")]


async def test_two_clerks_at_once_make_one_delivery_of_each_event(desk: Desk) -> None:
    import asyncio

    from tests.worker.webhooks.conftest import Conditions
    from worker.webhooks.taker import WebhookTaker

    wants = await desk.create()
    for _ in range(30):
        await desk.happen()
    takers = [WebhookTaker(Conditions()) for _ in range(3)]
    await asyncio.gather(*(hand_over(desk.database, [taker]) for taker in takers))
    await desk.match()
    assert len(await desk.logs(wants)) == 30


async def test_what_waits_for_couriers_wakes_them(sqlite_desk: Desk) -> None:
    wants = await sqlite_desk.create()
    await sqlite_desk.happen()
    await sqlite_desk.match()
    await sqlite_desk.database.settle()
    assert any(("webhook_due", str(wants.id)) in pending.changes for pending in sqlite_desk.told)
