"""The list of job logs, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from tests.webapp.rows import Rows
from webapp.queries import job_logs
from webapp.queries.job_logs import list_jobs, load_jobs, newer_count, one_job, stream_jobs
from worker.db.base import utc_now
from worker.db.session import Database
from worker.errors import Invalid
from worker.joblogs.models import JobLog
from worker.joblogs.search import JobFilter, parse


async def found(database: Database, typed: str, **options: Any) -> list[UUID]:
    wanted = parse(typed, utc_now())
    assert wanted.problems == ()
    async with database.read() as connection:
        return [job.job_id for job in (await list_jobs(connection, wanted, **options)).items]


async def test_pages_forth_and_back_show_every_row_once_and_in_order(database: Database, rows: Rows) -> None:
    ids = await rows.add(*(rows.job(ago_s=100 - n) for n in range(23)))
    newest_first = sorted(ids, reverse=True)
    async with database.read() as connection:
        seen: list[list[UUID]] = []
        page = await list_jobs(connection, JobFilter(), limit=5)
        assert page.previous is None
        while True:
            seen.append([job.job_id for job in page.items])
            if page.next is None:
                break
            page = await list_jobs(connection, JobFilter(), cursor=page.next, limit=5)
        assert [one for part in seen for one in part] == newest_first
        back = [seen[-1]]
        while page.previous is not None:
            page = await list_jobs(connection, JobFilter(), cursor=page.previous, limit=5)
            back.insert(0, [job.job_id for job in page.items])
        assert [one for part in back for one in part] == newest_first


async def test_a_page_stays_where_it_is_while_new_jobs_arrive(database: Database, rows: Rows) -> None:
    await rows.add(*(rows.job(ago_s=100 - n) for n in range(8)))
    async with database.read() as connection:
        first = await list_jobs(connection, JobFilter(), limit=4)
    assert first.next
    newcomers = await rows.add(rows.job(ago_s=1), rows.job(ago_s=0))
    async with database.read() as connection:
        second = await list_jobs(connection, JobFilter(), cursor=first.next, limit=4)
        assert first.begin
        newer = await newer_count(connection, JobFilter(), first.begin)
        again = await list_jobs(connection, JobFilter(), cursor=first.begin, limit=4)
    assert not {job.job_id for job in second.items} & {job.job_id for job in first.items}
    assert newer == len(newcomers)
    assert again.items == first.items


@pytest.mark.parametrize("typed", ["", "queue:mail", "status:success,failed", "error:nowhere", "args.to:ada"])
@pytest.mark.parametrize("sort", ["enqueued", "started", "completed", "duration"])
async def test_a_page_is_found_again_from_its_first_row_whatever_came_before_it(
    database: Database, rows: Rows, typed: str, sort: str
) -> None:
    def jobs(n: int, **fields: Any) -> list[dict[str, Any]]:
        return [rows.job(queue="mail", status="failed", error="nowhere", **fields) for _ in range(n)]

    await rows.add(*jobs(9, ago_s=100))
    wanted = parse(typed, utc_now())
    async with database.read() as connection:
        first = await list_jobs(connection, wanted, sort, limit=4)
        second = await list_jobs(connection, wanted, sort, first.next, limit=4)
    late = utc_now() + timedelta(seconds=60)
    await rows.add(*jobs(5, ago_s=0, started_at=late, completed_at=late + timedelta(seconds=9)))
    async with database.read() as connection:
        for page, newer in ((first, 5), (second, 9)):
            assert page.begin
            again = await list_jobs(connection, wanted, sort, page.begin, 4)
            assert (again.items, again.next, again.begin) == (page.items, page.next, page.begin)
            count = await newer_count(connection, wanted, page.begin, sort)
            assert count == (0 if wanted.scans else newer)
            assert again.previous is not None


async def test_a_page_whose_rows_have_all_gone_is_the_first_one(database: Database, rows: Rows) -> None:
    gone, *rest = await rows.add(*(rows.job(queue="mail", ago_s=100 - n) for n in range(3)))
    async with database.transaction() as session:
        await session.execute(sa.update(JobLog).where(JobLog.id == gone).values(deleted_at=utc_now()))
    async with database.read() as connection:
        page = await list_jobs(connection, JobFilter(), cursor=f"from~{gone.hex}", limit=4)
    assert [job.job_id for job in page.items] == rest[::-1]


@pytest.mark.parametrize("sort", ["started", "completed", "duration"])
async def test_other_orders_page_through_ties_without_losing_a_row(
    database: Database, rows: Rows, sort: str
) -> None:
    now = utc_now()
    jobs = []
    for n in range(12):
        start = now - timedelta(seconds=500 - 10 * (n // 3))
        jobs.append(rows.job(started_at=start, completed_at=start + timedelta(seconds=1 + n // 4)))
    ids = await rows.add(*jobs, rows.job(status="queued"))
    async with database.read() as connection:
        seen, cursor = [], None
        while True:
            page = await list_jobs(connection, JobFilter(), sort, cursor, 5)
            seen += page.items
            cursor = page.next
            if cursor is None:
                break
        back = await list_jobs(connection, JobFilter(), sort, page.previous, 5)
    assert {job.job_id for job in seen} == set(ids[:12])
    assert len(seen) == 12
    field = {"started": "started_at", "completed": "completed_at", "duration": "duration_seconds"}[sort]
    values = [getattr(job, field) for job in seen]
    assert values == sorted(values, reverse=True)
    assert list(back.items) == seen[5:10]


async def test_a_foreign_cursor_is_refused_by_name(database: Database) -> None:
    async with database.read() as connection:
        for cursor in ("nonsense", "older~12", "older~" + "0" * 32 + "~x"):
            with pytest.raises(Invalid, match="cursor"):
                await list_jobs(connection, JobFilter(), "duration", cursor)


@pytest.mark.parametrize(
    ("typed", "which"),
    [
        ("status:failed", {"failed", "resolved"}),
        ("status:failed is:unresolved", {"failed"}),
        ("status:failed,success queue:mail", {"mail", "failed"}),
        ("job:import_csv", {"import"}),
        ("tag:nightly", {"import"}),
        ("tag:night", set()),
        ("args.to:ADA@example", {"mail", "failed", "resolved"}),
        ("args.to:a%a", set()),
        ("args.rows:42", {"import"}),
        ("args.rows:4", set()),
        ("args.dry:true", {"import"}),
        ("args.dry:1", set()),
        ("args.name.first:zoë", {"import"}),
        ('args.files:"b.csv"', {"import"}),
        ("error:TIMED", {"failed"}),
        ("error:100%", {"failed"}),
        ("error:1%0", set()),
        ("zoë", {"import"}),
        ("smtp", {"failed"}),
        ('"timed out" ada', {"failed"}),
        ("user:ada", {"mail"}),
        ("group:abc", {"failed"}),
        ("before:1h", {"old"}),
        ("after:1h status:success", {"mail", "import", "late"} - {"late"}),
        ("status:late", {"late"}),
        ("ended:1h job:send_email", {"mail", "failed", "resolved"}),
    ],
)
async def test_each_word_finds_its_rows(database: Database, rows: Rows, typed: str, which: set[str]) -> None:
    ada = {"to": "Ada@example.com"}
    jobs = {
        "mail": rows.job(queue="mail", args=ada, user_id="ada"),
        "failed": rows.job(
            status="failed", queue="mail", args=ada, error="smtp timed out at 100%", error_fingerprint="abc"
        ),
        "resolved": rows.job(status="failed", args=ada, resolved_at=utc_now()),
        "import": rows.job(
            "import_csv",
            args={"rows": 42, "dry": True, "name": {"first": "Zoë"}, "files": ["a.csv", "b.csv"]},
            tags=["nightly", "slow"],
        ),
        "late": rows.job("sweep", status="queued", ago_s=900, args={}),
        "old": rows.job("sweep", ago_s=90_000, args={}),
        "deleted": rows.job("sweep", args=ada, deleted_at=utc_now(), queue="mail", user_id="ada"),
    }
    await rows.add(*jobs.values())
    names = {job["id"]: name for name, job in jobs.items()}
    assert {names[one] for one in await found(database, typed)} == which


async def test_finds_the_jobs_of_a_worker_by_host_and_pid_and_id(database: Database, rows: Rows) -> None:
    worker = await rows.worker(host="box", pid=41)
    other = await rows.worker(host="attic", pid=7)
    mine, theirs = await rows.add(rows.job(worker_id=worker), rows.job(worker_id=other))
    assert await found(database, "worker:box") == [mine]
    assert await found(database, "worker:box:41") == [mine]
    assert await found(database, "worker:box:42") == []
    assert await found(database, f"worker:{str(other)[:13]}") == [theirs]


async def test_finds_a_job_by_the_beginning_of_its_id(database: Database, rows: Rows) -> None:
    wanted, _ = await rows.add(rows.job(ago_s=5), rows.job(ago_s=50_000))
    assert await found(database, f"id:{wanted}") == [wanted]
    assert await found(database, f"id:{str(wanted)[:10]}") == [wanted]


async def test_a_search_with_a_mistake_finds_nothing(database: Database, rows: Rows) -> None:
    await rows.add(rows.job())
    async with database.read() as connection:
        page = await list_jobs(connection, parse("status:broken", utc_now()))
    assert page.items == []


async def test_a_search_that_runs_out_of_time_says_how_far_it_came_and_goes_on_from_there(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "SCAN_CHUNK", 4)
    monkeypatch.setattr(job_logs, "SCAN_BUDGET_S", -1.0)
    needle = (await rows.add(rows.job(ago_s=500, args={"to": "needle"})))[0]
    await rows.add(*(rows.job(ago_s=400 - n) for n in range(10)))
    wanted, cursor, pages, hits = parse("needle", utc_now()), None, 0, []
    async with database.read() as connection:
        while True:
            page = await list_jobs(connection, wanted, cursor=cursor, limit=3)
            hits += page.items
            pages += 1
            if page.next is None:
                break
            assert page.searched_back_to is not None
            cursor = page.next
    assert [job.job_id for job in hits] == [needle]
    assert pages == 3


async def test_a_list_does_not_read_long_arguments_and_one_job_does(database: Database, rows: Rows) -> None:
    long = "".join(map(str, range(20_000)))
    job_id = (await rows.add(rows.job(args={"text": long}, result={"ok": True})))[0]
    async with database.read() as connection:
        listed = (await load_jobs(connection, [job_id]))[job_id]
        whole = await one_job(connection, job_id)
    assert (listed.args, listed.first_arg, listed.result) == (None, "…", None)
    assert whole is not None
    assert whole.args == {"text": long}
    assert whole.result == {"ok": True}


async def test_the_first_argument_is_the_signatures_first_and_secrets_never_show(
    database: Database, rows: Rows
) -> None:
    await rows.offer("pay", parameters=[{"name": "card"}, {"name": "amount"}])
    sealed = {"$secret": "gAAAA-ciphertext"}
    ids = await rows.add(
        rows.job("pay", args={"amount": 12, "card": "visa"}),
        rows.job("pay", args={"amount": 12, "card": sealed}),
    )
    async with database.read() as connection:
        views = await load_jobs(connection, ids)
    assert views[ids[0]].first_arg == "visa"
    assert "ciphertext" not in repr(views[ids[1]])


async def test_an_export_streams_every_matching_row_in_chunks(database: Database, rows: Rows) -> None:
    await rows.add(*(rows.job(ago_s=n) for n in range(7)), rows.job(queue="mail"))
    chunks = [chunk async for chunk in stream_jobs(database, parse("queue:default", utc_now()), chunk=3)]
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert len({job.job_id for chunk in chunks for job in chunk}) == 7
