"""Every fragment that a page may watch: loaded from real rows, rendered alone, for each role, and asked for by name."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.webapp.webhooks import a_delivery, a_webhook
from webapp.live.waiting import FRAME_BYTES
from webapp.paths import folder
from worker.db.base import new_id, utc_now
from worker.db.session import changed
from worker.joblogs.models import JobAttempt, JobCounter
from worker.jobs.models import Queue
from worker.process.models import Worker
from worker.schedules.models import ScheduledJob, ScheduleFire
from worker.webhooks.models import Webhook, WebhookLog, WebhookReplay

EVIL = "<img src=x onerror=alert(1)></hx-partial>"


@pytest.fixture
async def worker_id(one):
    worker_id, now = new_id(), utc_now()
    async with one.engine.database.transaction() as session:
        session.add(
            Worker(id=worker_id, kind="worker", host=EVIL, pid=7, beat_at=now, started_at=now, slots=4)
        )
        session.add(Queue(name="default", created_at=now, paused_at=now, paused_by=EVIL, pause_reason=EVIL))
        session.add(JobCounter(job_name="add", queue="default", status="queued", n=1))
    return worker_id


@pytest.fixture
async def schedule_id(one):
    """A paused schedule that has fired, been late, and been refused."""
    schedule_id, now = new_id(), utc_now()
    async with one.engine.database.transaction() as session:
        session.add(
            ScheduledJob(
                id=schedule_id, name=EVIL, function=EVIL, args={"a": EVIL}, cron_expression="0 9 * * *", anchor=now,
                paused_at=now, paused_by=EVIL, pause_reason=EVIL, last_fire_at=now, created_at=now, updated_at=now,
            )
        )  # fmt: skip
        for minutes, outcome in enumerate(("enqueued", "skipped_overlap", "missed", "refused")):
            session.add(
                ScheduleFire(
                    scheduled_job_id=schedule_id, fire_at=now - timedelta(minutes=minutes), outcome=outcome, detail=EVIL,
                    kind="manual", user_id=EVIL, job_id=new_id(), created_at=now,
                )
            )  # fmt: skip
    return schedule_id


@pytest.fixture
async def webhook_keys(one):
    """A webhook that switched itself off, a delivery that failed, a batch that was stopped."""
    database = one.engine.database
    webhook_id = await a_webhook(database, EVIL, event="job.>", payload_template=EVIL)
    log_id = await a_delivery(database, webhook_id, answer=EVIL, event_type="job.failed", data={"a": EVIL})
    now, replay_id = utc_now(), new_id()
    async with database.transaction() as session:
        values = {"enabled": False, "disabled_by": "engine", "disabled_reason": EVIL, "disabled_at": now}
        await session.execute(sa.update(Webhook).values(**values))
        session.add(
            WebhookReplay(
                id=replay_id, filter={"event": EVIL}, cutoff=now, status="stopped", total=3, done=1, refused=1,
                refusals=[{"log_id": EVIL, "why": EVIL}], next_at=now, user_id=EVIL, created_at=now, ended_at=now,
            )
        )  # fmt: skip
    return [
        *(f"{name}:{webhook_id}" for name in ("webhook", "webhook-head", "deliveries")),
        *(f"{name}:{log_id}" for name in ("delivery", "delivery-page")),
        f"replay:{replay_id}",
    ]


@pytest.fixture
async def keys(one, worker_id, schedule_id, webhook_keys):
    """One key of every name in the templates."""
    now = utc_now()
    job = await one.job(
        status="running", worker_id=worker_id, started_at=now, progress=0.5, progress_note=EVIL
    )
    failed = await one.job(
        name=EVIL, status="failed", error=EVIL, traceback=EVIL, error_fingerprint="f" * 32, started_at=now,
        completed_at=now, args={"a": EVIL}, attempt=1,
    )  # fmt: skip
    done = await one.job(status="success", result={"a": EVIL}, started_at=now, completed_at=now, attempt=1)
    probe = await one.job(name="desk.probe", status="success", started_at=now, completed_at=now)
    async with one.engine.database.transaction() as session:
        session.add(
            JobAttempt(
                job_id=failed, epoch=1, attempt=1, outcome="failed", error=EVIL, ended_at=now, traceback=EVIL
            )
        )
    per_job = [
        f"{name}:{of}"
        for of in (job, failed, done)
        for name in ("job-row", "job-header", "job-facts", "job-attempts", "job-error", "job-result")
    ]
    return [
        *per_job,
        f"probe:{probe}",
        "counters:all",
        "attention:all",
        "feed:all",
        "events::",
        "queue:default",
        f"worker:{worker_id}",
        "standing:all",
        "broker:all",
        "dead-letters:all",
        f"dead-letter:{'f' * 32}",
        *[f"{name}:{schedule_id}" for name in ("schedule", "schedule-head", "schedule-history")],
        *webhook_keys,
    ]


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_each_is_rendered_alone_and_escaped(one, keys, role):
    async with one.page(role=role) as page:
        await page.watch(*[(key, "") for key in keys])
        for key in keys:
            await page.shows(f"""hx-target="[data-live='{key}']\"""")
        assert "<img" not in page.html
        assert page.html.count("<hx-partial") == page.html.count("</hx-partial>") == len(keys)
        assert ('form="act"' in page.html) is (role != "viewer")


async def test_what_was_sent_is_what_the_page_then_has(one, keys):
    """Otherwise every beat would send it again."""
    async with one.page() as page:
        await page.watch(*[(key, "") for key in keys])
        for key in keys:
            await page.shows(f"""hx-target="[data-live='{key}']\"""")
        revs = dict(re.findall(r'data-live="([^"]+)" data-rev="([^"]*)"', page.html))
        assert set(revs) == set(keys)
        quiet = len(page.frames)
        page.messages.clear()
        await page.watch(*revs.items())
        await page.told(mode="live")
        job = await one.job()
        await page.watch(*revs.items(), (f"job-row:{job}", ""))
        await page.shows(str(job))
        repeated = [key for key in keys if any(f"'{key}'" in frame for frame in page.frames[quiet:])]
        assert [
            key for key in repeated if not key.endswith((":all", "::")) and not key.startswith("queue:")
        ] == []


def test_every_name_in_the_templates_is_known(one_app_sources):
    names = set()
    for path in folder("templates").rglob("*.html"):
        names |= set(re.findall(r'data-live(?:-append)?="([a-z-]+):', path.read_text()))
    assert names <= one_app_sources
    assert len(names) > 10


@pytest.fixture
def one_app_sources():
    from unittest.mock import Mock

    from webapp.live.fragments import sources

    return {source.name for source in sources(lambda template, context: "", Mock())}


async def test_a_fragment_that_cannot_be_rendered_does_not_keep_the_others_back(one):
    good, bad = await one.job(), await one.job()
    rows = one.live.quick.sources["job-row"]
    real = rows.render

    def render(template, context):
        if context["job"].job_id == bad:
            raise ZeroDivisionError
        return real(template, context)

    rows.render = render
    async with one.page() as page:
        await page.watch((f"job-row:{bad}", "0"), (f"job-row:{good}", "0"))
        await page.shows(str(good))


async def test_a_result_of_200_kb_is_left_to_the_page(one):
    job = await one.job(
        status="success", result={"text": "x" * 200_000}, started_at=utc_now(), completed_at=utc_now()
    )
    async with one.page() as page:
        await page.watch((f"job-result:{job}", "0"), (f"job-row:{job}", "0"))
        await page.told(stale=f"job-result:{job}")
        await page.shows(f"job-row:{job}")
        assert max(len(frame) for frame in page.frames) < FRAME_BYTES


async def test_a_failure_appears_among_the_dead_letters_and_is_counted(one):
    async def fail():
        return await one.job(
            status="failed", error="OSError: away", error_fingerprint="d" * 32, completed_at=utc_now()
        )

    async with one.page() as page:
        await page.watch(("dead-letters:all", ""))
        await page.shows("No dead letters.")
        await fail()
        await page.shows(f"/dead-letters/{'d' * 32}")
        await page.watch((f"dead-letter:{'d' * 32}", ""))
        await page.shows(">1</a>")
        await fail()
        await page.shows(">2</a>")


async def test_a_new_worker_appears_and_that_none_is_left_is_said_without_a_reload(one, worker_id):
    async with one.page() as page:
        await page.watch((f"worker:{worker_id}", ""), ("standing:all", ""))
        await page.shows("standing:all")
        assert "No worker takes jobs." not in page.html
        new, now = new_id(), utc_now()
        async with one.engine.database.transaction() as session:
            session.add(
                Worker(id=new, kind="worker", host="new", pid=8, beat_at=now, started_at=now, slots=4)
            )
            changed(session, "worker", new, 1)
        await page.shows(f'id="worker-{new}"')
        async with one.engine.database.transaction() as session:
            await session.execute(sa.update(Worker).values(ended_at=now, end_reason="was stopped"))
            changed(session, "worker", new, 2)
        await page.shows("No worker takes jobs.")


async def test_a_queue_that_is_paused_says_so_within_a_second(one, worker_id):
    async with one.page() as page:
        await page.watch(("queue:default", ""))
        await page.shows("Paused by")
        async with one.engine.database.transaction() as session:
            await session.execute(sa.update(Queue).values(paused_at=None, rev=Queue.rev + 1))
            changed(session, "queue", "default", 2)
        await page.shows("/queues/default/pause")


async def test_what_was_sent_about_people_reaches_admins_alone(one):
    database = one.engine.database
    webhook_id = await a_webhook(database, event="doc.*")
    log_id = await a_delivery(
        database, webhook_id, doctype="User", event_type="doc.updated", answer="secretive"
    )
    watched = [(f"deliveries:{webhook_id}", ""), (f"delivery:{log_id}", ""), (f"delivery-page:{log_id}", "")]
    for role in ("operator", "admin"):
        async with one.page(role=role) as page:
            await page.watch(*watched)
            for key, _ in watched:
                await page.shows(f"""hx-target="[data-live='{key}']\"""")
            assert ("doc.updated" in page.html, "secretive" in page.html) == (
                role == "admin",
                role == "admin",
            )


async def test_a_delivery_turns_green_on_every_page_that_shows_it(one):
    database = one.engine.database
    webhook_id = await a_webhook(database)
    log_id = await a_delivery(database, webhook_id, status="sending")
    keys = [
        f"deliveries:{webhook_id}",
        f"webhook:{webhook_id}",
        f"delivery:{log_id}",
        f"delivery-page:{log_id}",
    ]
    async with one.page() as page:
        await page.watch(*[(key, "") for key in keys])
        for key in keys:
            await page.shows(f"'{key}'")
        page.messages.clear()
        async with database.transaction() as session:
            ended = {"status": "success", "response_code": 204, "rev": WebhookLog.rev + 1}
            await session.execute(sa.update(WebhookLog).values(**ended))
            changed(session, "webhook_log", log_id, 2)
        for key in keys:
            await page.shows(f"'{key}'")
        await page.shows("Success")
