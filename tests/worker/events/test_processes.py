"""Events through real processes: told by a command, carried by the clerk, acted on by a worker, heard by a stranger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.desk import Desk
from tests.worker.events.contract import Heard, fresh_prefix
from worker.events.nats import NatsEventBusAdapter

JOBS = """
from worker import job

@job(on="order.*", retry=0)
async def pack(event: dict) -> str:
    return f"packed {event['doc_id']}"
"""


async def test_an_event_from_a_command_starts_its_job_and_reaches_the_bus(
    desk: Desk, nats_server, tmp_path: Path
) -> None:
    (tmp_path / "orders_of_events.py").write_text(JOBS)
    prefix = fresh_prefix()
    desk.jobs, desk.nats_url = "orders_of_events", nats_server.url
    desk.environ |= {"PYTHONPATH": str(tmp_path), "M_PREFIX": prefix}
    desk.upgrade()
    desk.web()
    desk.worker()
    bus, heard = NatsEventBusAdapter(nats_server.url, prefix), Heard()
    await bus.subscribe("order.>", heard)
    await asyncio.to_thread(until, lambda: desk.call("GET", "/api/v1/job-catalogue/pack")[0] == 200)
    told = await asyncio.to_thread(
        desk.m, "event", "publish", "order.placed", "--doctype", "Order", "--doc-id", "7", check=True
    )
    event_id = told.stdout.strip()
    await asyncio.to_thread(until, lambda: desk.call("GET", f"/api/v1/events/{event_id}")[1]["published_at"])
    await heard.count(1)
    assert heard.events[0].event_id == event_id
    job = await asyncio.to_thread(until, lambda: packed(desk))
    assert (job["result"], job["user"]) == ("packed 7", heard.events[0].user_id)
    _, event = desk.call("GET", f"/api/v1/events/{event_id}")
    assert event["published_at"] is not None
    assert event["matched_at"] is not None
    await bus.stop()


def packed(desk: Desk) -> dict[str, Any] | None:
    _, jobs = desk.call("GET", "/api/v1/jobs?job_name=pack&status=success")
    return jobs["items"][0] if jobs["items"] else None


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.1)
    raise AssertionError("it did not happen")
