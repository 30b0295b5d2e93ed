"""Webhooks and deliveries as the engine leaves them, for pages and API, without a courier."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from worker.accounts.actor import Actor
from worker.db.base import new_id, utc_now
from worker.db.session import Database
from worker.webhooks import actions
from worker.webhooks.models import Webhook, WebhookAttempt, WebhookLog
from worker.webhooks.taker import insert_logs, log_of
from worker.webhooks.wishes import Wish, checked

URL = "https://93.184.216.34/hook?key=s3cret"
ADA = Actor("ada", role="admin")


class NoChecks:
    """Fields are judged in other tests."""

    async def url(self, url: str) -> str | None:
        return None

    condition = payload_template = url


async def a_webhook(database: Database, name: str = "alerts", **fields: Any) -> UUID:
    wish: Wish = await checked({"name": name, "event": "invoice.>", "url": URL, **fields}, NoChecks())
    async with database.transaction() as session:
        return (await actions.create(session, wish, actor=ADA))[0].id


async def a_delivery(database: Database, webhook_id: UUID, status: str = "failed", **fields: Any) -> UUID:
    """A delivery with one attempt, as a courier left it; `answer` is the receiver's text, the rest is the event's."""
    now, answer = utc_now(), fields.pop("answer", "oops")
    code = 200 if status == "success" else 500
    async with database.transaction() as session:
        webhook = await session.get(Webhook, webhook_id)
        assert webhook is not None
        event = {"event_id": str(new_id()), "event_type": "invoice.paid", "data": {"number": 7}} | fields
        values = log_of(webhook, event, now)
        await insert_logs(session, [values])
        ended = {
            "response_code": code,
            "response_body": answer,
            "attempts": 1,
            "ended_at": now,
            "duration_ms": 8.5,
        }
        await session.execute(
            sa.update(WebhookLog)
            .where(WebhookLog.id == values["id"])
            .values(status=status, body=b'{"a":1}', body_hash="9f" * 32, **ended)
        )
        session.add(
            WebhookAttempt(
                webhook_log_id=values["id"], webhook_id=webhook_id, number=1, trigger="auto",
                outcome="success" if code == 200 else "failed", started_at=now, ended_at=now, method="POST", url=URL,
                request_headers={"webhook-id": "x"}, peer_ip="93.184.216.34", status_code=code,
                response_headers={"x": answer}, response_body=answer, response_truncated=False, dns_ms=1.0,
                connect_ms=2.0, first_byte_ms=3.0, total_ms=8.5,
            )
        )  # fmt: skip
    return UUID(str(values["id"]))
