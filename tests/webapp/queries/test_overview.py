"""What the overview, the catalogue and the workers page read, on both databases."""

from __future__ import annotations

from datetime import timedelta

from tests.webapp.rows import Rows
from webapp.queries.catalogue import list_catalogue
from webapp.queries.counters import CAP, counters, late_count, matching, status_counts, words
from webapp.queries.job_logs import list_columns
from webapp.queries.overview import failure_grid, feed, latencies, throughput
from webapp.queries.queues import list_queues, load_queues
from webapp.queries.workers import list_workers, taken_queues
from worker.db.base import utc_now
from worker.db.session import Database, emit
from worker.joblogs.dead_letters import failure_groups
from worker.joblogs.models import JobCounterDelta, JobLog
from worker.joblogs.search import JobFilter, parse
from worker.jobs.models import Queue


async def test_the_counters_are_unresolved_failures_running_and_late(database: Database, rows: Rows) -> None:
    await rows.add(
        rows.job(status="failed"),
        rows.job(status="failed", resolved_at=utc_now()),
        rows.job(status="failed", deleted_at=utc_now()),
        rows.job(status="running"),
        rows.job(status="queued", ago_s=400, priority=9),
        rows.job(status="queued", ago_s=10),
        rows.job(status="queued", ago_s=400, queue="mail"),
    )
    async with database.read() as connection:
        seen = await counters(connection, 300)
    assert (seen.failed, seen.running, seen.late) == ("1", "1", "2")


async def test_tab_counts_come_from_the_counters_and_what_is_not_folded_in_yet(
    database: Database, rows: Rows
) -> None:
    await rows.add(rows.job(), rows.job(queue="mail"), rows.job(status="failed"))
    async with database.transaction() as session:
        session.add(JobCounterDelta(job_name="send_email", queue="mail", status="success", delta=3))
    async with database.read() as connection:
        everything = await status_counts(connection, JobFilter(), 300)
        mail = await status_counts(connection, parse("queue:mail status:failed", utc_now()), 300)
        recent = await status_counts(connection, parse("after:1h", utc_now()), 300)
        text = await status_counts(connection, parse("smtp", utc_now()), 300)
    assert (everything["success"], everything["failed"], everything["queued"]) == (5, 1, 0)
    assert (mail["success"], mail["failed"]) == (4, 0)
    assert (recent["success"], recent["failed"]) == (2, 1)
    assert set(text.values()) == {None}


async def test_a_count_stops_at_ten_thousand(database: Database) -> None:
    assert words(CAP + 1) == "10k+"
    assert words(CAP) == "10\u202f000"
    assert words(0) == ""
    async with database.read() as connection:
        assert await late_count(connection, utc_now()) == 0
        assert await matching(connection, parse("is:unresolved", utc_now()), 300) == 0


async def test_failures_of_one_kind_are_one_group_with_its_first_and_last_time(
    database: Database, rows: Rows
) -> None:
    await rows.add(
        rows.job(status="failed", ago_s=900, error="smtp down\ntrace", error_fingerprint="a"),
        rows.job(status="failed", ago_s=100, error="smtp down again", error_fingerprint="a"),
        rows.job("resize", status="failed", ago_s=50, error="no memory", error_fingerprint="b"),
        rows.job(status="failed", ago_s=10, error="old news", error_fingerprint="c", resolved_at=utc_now()),
    )
    async with database.read() as connection:
        groups = await failure_groups(connection)
    assert [(one.fingerprint, one.job_name, one.count, one.error) for one in groups] == [
        ("b", "resize", 1, "no memory"),
        ("a", "send_email", 2, "smtp down again"),
    ]
    assert timedelta(seconds=799) < groups[1].last_at - groups[1].first_at < timedelta(seconds=801)


async def test_the_failure_grid_counts_by_when_the_job_ended(database: Database, rows: Rows) -> None:
    await rows.add(
        *(rows.job(status="failed", ago_s=ago) for ago in (60, 7_200, 80_000, 200_000, 500_000, 900_000)),
        rows.job("resize", status="failed", ago_s=500_000),
    )
    async with database.read() as connection:
        grid = await failure_grid(connection)
    assert [(row.job_name, list(row.cells.values())) for row in grid] == [
        ("send_email", [1, 2, 3, 4, 5]),
        ("resize", [0, 0, 0, 0, 1]),
    ]


async def test_throughput_has_a_bucket_for_every_minute_and_loses_nothing(
    database: Database, rows: Rows
) -> None:
    await rows.add(
        *(rows.job(ago_s=ago) for ago in (10, 70, 71, 1800)),
        rows.job(status="failed", ago_s=70),
        rows.job(ago_s=9_000),
    )
    async with database.read() as connection:
        for window, succeeded in (("1h", 4), ("24h", 5), ("7d", 5)):
            buckets = await throughput(connection, window)
            assert sum(bucket.succeeded for bucket in buckets) == succeeded
            assert sum(bucket.failed for bucket in buckets) == 1
            starts = [bucket.start for bucket in buckets]
            assert starts == sorted(starts)
        assert len(await throughput(connection, "1h")) == 60
        (latency,) = await latencies(connection, "1h")
    assert (latency.queue, latency.runs, latency.wait["p50"], latency.run["p99"]) == ("default", 5, 1.0, 2.0)


async def test_a_queue_shows_what_waits_how_long_and_whether_anyone_takes_it(
    database: Database, rows: Rows
) -> None:
    await rows.worker(queues=["mail:2"])
    oldest = rows.job(status="queued", ago_s=900, queue="mail", priority=8)
    await rows.add(
        oldest,
        rows.job(status="queued", ago_s=20, queue="mail"),
        rows.job(status="running", queue="mail"),
        rows.job(status="queued", ago_s=5, queue="video"),
        rows.job(status="scheduled", queue="video"),
    )
    async with database.transaction() as session:
        session.add(
            Queue(
                name="mail",
                paused_at=utc_now(),
                pause_reason="smtp is down",
                concurrency=4,
                created_at=utc_now(),
            )
        )
    async with database.read() as connection:
        mail, video = await list_queues(connection, 300)
        only = await load_queues(connection, ["mail"], 300)
    assert (mail.name, mail.waiting, mail.running, mail.limit, mail.has_worker) == ("mail", 2, 1, 4, True)
    assert mail.oldest_at == oldest["run_at"]
    assert (mail.late, video.late) == (True, False)
    assert (mail.pause_reason, video.has_worker, video.later) == ("smtp is down", False, 1)
    assert only == {"mail": mail}


async def test_the_feed_is_the_last_transitions_newest_first(database: Database) -> None:
    for name in ("job.queued", "job.started", "job.succeeded", "worker.lost"):
        async with database.transaction() as session:
            emit(session, name, {"job_id": "1", "job_name": "send_email", "queue": "default"}, "ada")
    async with database.read() as connection:
        found = await feed(connection)
    assert [entry.status for entry in found] == ["success", "running", "queued"]


async def test_the_catalogue_shows_the_last_runs_of_each_job_oldest_first(
    database: Database, rows: Rows
) -> None:
    await rows.offer("send_email", doc="Sends one.\n\nSlowly.")
    await rows.offer("resize")
    await rows.worker(jobs=["send_email"])
    ids = await rows.add(
        *(rows.job(ago_s=100 - n, status="failed" if n % 4 == 0 else "success") for n in range(70)),
        rows.job(status="queued"),
    )
    async with database.read() as connection:
        resize, email = await list_catalogue(connection)
    assert [run.job_id for run in email.runs] == sorted(ids[:70])[-60:]
    assert email.success_rate == 45 / 60
    assert (email.summary, email.p95_seconds, email.has_worker) == ("Sends one.", 2.0, True)
    assert (resize.runs, resize.success_rate, resize.has_worker) == ((), None, False)


async def test_workers_show_what_they_run_and_an_old_death_is_forgotten(
    database: Database, rows: Rows
) -> None:
    now = utc_now()
    alive = await rows.worker(host="a", queues=["default", "mail"])
    silent = await rows.worker(host="b", beat_at=now - timedelta(minutes=5), queues=["video"])
    gone = await rows.worker(host="c", ended_at=now - timedelta(minutes=5))
    await rows.worker(host="d", ended_at=now - timedelta(days=1))
    (running,) = await rows.add(rows.job(status="running", worker_id=alive))
    async with database.read() as connection:
        found = await list_workers(connection)
        assert await taken_queues(connection) == {"default", "mail"}
    assert [one.id for one in found] == [alive, silent, gone]
    assert [job.job_id for job in found[0].current] == [running]
    assert [one.late for one in found] == [False, True, False]


async def test_the_hot_queries_use_an_index_and_sort_nothing(database: Database, rows: Rows) -> None:
    await rows.add(*(rows.job() for _ in range(3)))
    statement = list_columns(database.dialect).where(JobLog.deleted_at.is_(None), JobLog.status == "failed")
    statement = statement.order_by(JobLog.id.desc()).limit(51)
    compiled = str(statement.compile(database.engine.sync_engine, compile_kwargs={"literal_binds": True}))
    async with database.read() as connection:
        if database.dialect == "postgresql":
            await connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
        plan = str((await connection.exec_driver_sql(explain + compiled)).all())
    assert "ix_job_logs_status_id" in plan
    assert "TEMP B-TREE" not in plan
