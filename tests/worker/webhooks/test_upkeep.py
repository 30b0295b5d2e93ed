"""What is old goes: deliveries, verdicts, deleted webhooks, old secrets. What may still be sent stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import sqlalchemy as sa

from tests.worker.webhooks.conftest import Desk
from worker.joblogs import maintenance
from worker.webhooks import actions, replays
from worker.webhooks.models import Webhook, WebhookAttempt, WebhookLog, WebhookMiss, WebhookState


async def purge(desk: Desk, retention_days: int = 2) -> dict[str, int]:
    settings = replace(desk.database.info["reception"].settings, retention_days=retention_days)
    return await maintenance.purge(desk.database, settings)


async def count(desk: Desk, table: type) -> int:
    async with desk.database.session() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


async def test_ended_deliveries_go_with_their_attempts_after_the_retention(desk: Desk) -> None:
    await desk.create()
    await desk.deliver()
    desk.later(days=2)
    assert (await purge(desk))["webhook_logs"] == 0
    desk.later(seconds=1)
    assert (await purge(desk))["webhook_logs"] == 1
    assert (await count(desk, WebhookLog), await count(desk, WebhookAttempt)) == (0, 0)


async def test_what_may_still_be_sent_stays_however_old_and_what_cannot_goes(desk: Desk) -> None:
    waits, off = await desk.create("waits", retry="75h"), await desk.create("off")
    desk.receiver.answers[waits.url] = 500
    await desk.happen()
    await desk.match()
    await desk.do(actions.disable, off.id)
    await desk.send()
    desk.later(days=3)
    assert (await purge(desk))["webhook_logs"] == 1
    assert [log.webhook_id for log in await desk.logs()] == [waits.id]


async def test_a_deleted_webhook_goes_after_its_undo_and_its_deliveries_keep_its_name(desk: Desk) -> None:
    hook = await desk.create("gone")
    await desk.deliver()
    await desk.do(actions.delete, hook.id)
    desk.later(minutes=59)
    assert (await purge(desk))["webhooks"] == 0
    desk.later(minutes=2)
    assert (await purge(desk))["webhooks"] == 1
    assert (await count(desk, Webhook), await count(desk, WebhookState)) == (0, 0)
    assert [log.webhook_name for log in await desk.logs()] == ["gone"]


async def test_verdicts_and_ended_replays_go_after_a_week(sqlite_desk: Desk) -> None:
    desk = sqlite_desk
    hook = await desk.create(condition="big")
    await desk.deliver(word="small")
    await desk.do(replays.start, {"status": "failed"})
    await desk.replay()
    desk.later(days=7, seconds=1)
    purged = await purge(desk, 30)
    assert (purged["webhook_misses"], purged["webhook_replays"]) == (1, 1)
    assert await count(desk, WebhookMiss) == 0
    assert await desk.misses(hook) == []


async def test_an_old_secret_is_forgotten_when_its_overlap_is_over(sqlite_desk: Desk) -> None:
    hook = await sqlite_desk.create()
    await sqlite_desk.do(actions.rotate, hook.id, overlap=timedelta(hours=1))
    await purge(sqlite_desk)
    assert (await sqlite_desk.row(hook)).previous_secret is not None
    sqlite_desk.later(hours=1, seconds=1)
    await purge(sqlite_desk)
    row = await sqlite_desk.row(hook)
    assert (row.previous_secret, row.previous_secret_until) == (None, None)
