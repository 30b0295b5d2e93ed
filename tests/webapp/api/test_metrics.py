"""/metrics is Prometheus' format, needs a token, and counts what is there."""

from datetime import timedelta
from uuid import uuid4

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from tests.webapp.api.conftest import Client
from webapp.metrics import exposition
from webapp.queries.metrics import Figures
from worker.db.base import utc_now
from worker.process.models import Worker


async def samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await client.raw("GET", "/!/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def test_counts_what_stands_in_the_database(operator: Client) -> None:
    await operator.run()
    done = await operator.run("send_email", {"to": "a@b.c"})
    now = utc_now()
    await operator.set(done["job_id"], run_at=now - timedelta(seconds=3))
    await operator.set(done["job_id"], status="running", epoch=1, started_at=now - timedelta(seconds=2.2))
    await operator.set(
        done["job_id"], status="success", started_at=now - timedelta(seconds=2.2), completed_at=now
    )
    await operator.call("POST", "/queues/mail/pause", {})
    async with operator.engine.database.transaction() as session:
        row = {
            "id": uuid4(), "kind": "worker", "host": "box", "pid": 1, "beat_at": now, "started_at": now, "slots": 4,
            "busy": 3, "stale_finishes": 2,
        }  # fmt: skip
        await session.execute(sa.insert(Worker).values(**row))
    found = await samples(operator)
    assert found["m_jobs", (("job_name", "add"), ("queue", "sums"), ("status", "queued"))] == 1
    assert found["m_queue_depth", (("queue", "sums"),)] == 1
    assert found["m_queue_oldest_age_seconds", (("queue", "sums"),)] >= 0
    assert found["m_queue_paused", (("queue", "mail"),)] == 1
    assert (found["m_worker_slots", ()], found["m_worker_busy", ()], found["m_stale_finishes", ()]) == (
        4,
        3,
        2,
    )
    assert found["m_workers", (("kind", "worker"),)] == 1
    assert found["m_outbox_unpublished", ()] > 0
    assert found["m_broker_connected", (("backend", "memory"),)] == 1
    waits = {labels: value for (name, labels), value in found.items() if name == "m_job_wait_seconds_bucket"}
    assert waits[("le", "0.5"), ("queue", "mail")] == 0
    assert waits[("le", "1"), ("queue", "mail")] == 1
    runs = {labels: value for (name, labels), value in found.items() if name == "m_job_run_seconds_bucket"}
    assert runs[("le", "1"), ("queue", "mail")] == 0
    assert runs[("le", "+Inf"), ("queue", "mail")] == 1


async def test_needs_a_token(viewer: Client) -> None:
    assert (await viewer.http.get("/metrics")).status_code == 401
    assert (await viewer.raw("GET", "/!/metrics")).status_code == 200


def test_the_brokers_lanes_are_told_apart() -> None:
    empty = Figures({}, {}, {}, [], {}, {}, {}, 0, 0, 0, 0, 0)
    consumers = [{"queue": "mail", "lane": "high", "pending": 5, "ack_pending": 1, "redelivered": 0}]
    text = exposition(empty, {"backend": "nats", "connected": True, "consumers": consumers}).decode()
    assert 'm_broker_pending{lane="high",queue="mail"} 5.0' in text
