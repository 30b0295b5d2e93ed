"""Webhooks that need a person stand in the list of attention, and /metrics counts what webhooks do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from webapp.queries.attention import Surroundings, attention
from webapp.queries.webhook_metrics import webhook_figures
from webapp.queries.webhook_trouble import FAILING_FOR, troubled_webhooks
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.webhooks.models import Webhook, WebhookAttempt, WebhookLog, WebhookState


async def webhook(
    database: Database, name: str, *, state: dict[str, Any] | None = None, **values: Any
) -> UUID:
    now = utc_now()
    fields = {
        "id": new_id(), "name": name, "event": "doc.*", "url": "https://a.example", "headers": {},
        "secret_headers": {}, "secret": "", "created_at": now, "updated_at": now,
    } | values  # fmt: skip
    async with database.transaction() as session:
        session.add(Webhook(**fields))
        await session.flush()
        session.add(WebhookState(webhook_id=fields["id"], **({"failures": 0} | (state or {}))))
    return fields["id"]


async def test_what_the_desk_switched_off_and_what_fails_for_a_while_need_a_person(
    database: Database,
) -> None:
    now = utc_now()
    old, young = now - FAILING_FOR - timedelta(seconds=1), now - timedelta(seconds=10)
    off = await webhook(
        database, "off", enabled=False, disabled_at=now, disabled_by="engine", disabled_reason="410 Gone"
    )
    fails = await webhook(database, "fails", state={"failures": 7, "failing_since": old})
    await webhook(database, "by hand", enabled=False, disabled_at=now, disabled_by="ada")
    await webhook(database, "young", state={"failures": 7, "failing_since": young})
    await webhook(database, "once", state={"failures": 1, "failing_since": old})
    await webhook(database, "deleted", state={"failures": 7, "failing_since": old}, deleted_at=now)
    await webhook(database, "fine")
    async with database.read() as connection:
        found = await troubled_webhooks(connection, now)
    assert [(t.webhook_id, t.off_reason, t.failures) for t in found] == [
        (off, "410 Gone", 0),
        (fails, None, 7),
    ]
    around = Surroundings(True, True, 300, 10_000, {}, webhooks=found)
    lines = attention([], [], around, now)
    assert [(line.kind, line.title, line.detail, line.href) for line in lines] == [
        ("failed", "The webhook off was switched off", "410 Gone", f"/webhooks/{off}"),
        ("retrying", "The webhook fails fails", "7 failures in a row", f"/webhooks/{fails}"),
    ]


async def test_metrics_count_the_attempts_of_five_minutes_and_what_waits(database: Database) -> None:
    hook = await webhook(database, "hook")
    await webhook(database, "off", enabled=False)
    now = utc_now()
    log = {
        "webhook_id": hook, "webhook_name": "hook", "event_type": "doc.created", "event": {}, "due_at": now,
        "created_at": now,
    }  # fmt: skip
    attempt = {
        "webhook_id": hook, "number": 1, "trigger": "auto", "started_at": now, "ended_at": now, "method": "POST",
        "url": "", "request_headers": {},
    }  # fmt: skip
    async with database.transaction() as session:
        logs = [
            WebhookLog(**log, id=new_id(), event_id=str(n), status=status)
            for n, status in enumerate(("pending", "retrying", "success", "failed", "sending"))
        ]
        session.add_all(logs)
        await session.flush()
        for outcome in ("success", "success", "failed", "lost"):
            session.add(WebhookAttempt(**attempt, webhook_log_id=logs[0].id, outcome=outcome))
    async with database.read() as connection:
        found = await webhook_figures(connection, now)
        later = await webhook_figures(connection, now + timedelta(minutes=6))
    assert found.attempts == {("hook", "success"): 2, ("hook", "failed"): 1, ("hook", "lost"): 1}
    assert (found.waiting, found.enabled) == ({"hook": 2}, {"hook": 1, "off": 0})
    assert later.attempts == {}
