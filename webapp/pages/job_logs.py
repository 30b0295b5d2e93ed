"""The list of job logs: filter, page, sort, export."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from litestar import get
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.auth import actor, viewer
from webapp.pages import bulk, exports, list_view, one_job
from webapp.pages.list_view import Place, read_place
from webapp.pages.shared import Answer, AnyRequest, cached, database, late_after_s
from webapp.queries.counters import matching, status_counts, words
from webapp.queries.job_logs import SORT_WINDOW, SORTS, list_jobs, newer_count
from webapp.queries.paging import Page
from webapp.queries.views import JobView
from worker.accounts.audit import audit
from worker.db.base import utc_now
from worker.errors import Invalid
from worker.joblogs.models import JobCounter
from worker.joblogs.search import STATUSES
from worker.jobs.models import JobCatalogue

MOST_SHOWN = 50
REPEATABLE = {"repeatable": ("f", "show")}


@get(list_view.PATH, guards=[viewer], opt=REPEATABLE)
async def job_logs(request: AnyRequest) -> Answer:
    place = read_place(request.query_params, utc_now())
    async with database(request).read() as connection:
        page = Page([]) if place.problems else await _page(request, connection, place)
        counts = await _counts(request, connection, place)
        context = await _context(request, connection, place, page, counts)
    return render.page(
        request,
        "job_logs/list.html",
        title="Job logs",
        nav="job_logs",
        status=422 if place.problems else 200,
        jobs=page.items,
        tabs=list_view.tabs(place, counts, {status: words(n) for status, n in counts.items() if n}),
        tab=place.status,
        view=context,
    )


async def _page(request: AnyRequest, connection: AsyncConnection, place: Place) -> Page[JobView]:
    return await list_jobs(
        connection,
        place.wanted,
        place.sort,
        place.cursor or None,
        MOST_SHOWN,
        late_after_s=late_after_s(request),
    )


async def _counts(request: AnyRequest, connection: AsyncConnection, place: Place) -> dict[str, int | None]:
    """The tabs' counts, asked for at most once a second for one filter."""
    rest = place.wanted.with_status()
    counts: dict[str, int | None] = await cached(request).get(
        ("tabs", rest), 1.0, lambda: status_counts(connection, rest, late_after_s(request))
    )
    return counts


async def _context(
    request: AnyRequest,
    connection: AsyncConnection,
    place: Place,
    page: Page[JobView],
    counts: dict[str, int | None],
) -> dict[str, Any]:
    newer = 0
    if place.cursor and page.begin:
        newer = await newer_count(connection, place.wanted, page.begin, place.sort)
    total = (
        counts.get(place.status)
        if place.status
        else await matching(connection, place.wanted, late_after_s(request))
    )
    counts_new = not (place.problems or place.wanted.scans) and place.sort == "enqueued"
    at_newest = not place.cursor or (not place.wanted.scans and page.begin is not None and not newer)
    return {
        "q": place.text,
        "problems": place.problems,
        "chips": list_view.chips(place),
        "filtered": place.filtered,
        "clear_href": list_view.PATH,
        "sort": place.sort,
        "sorts": SORTS.items(),
        "columns": list_view.columns(place),
        "hidden_columns": place.hidden,
        "search_params": list_view.hidden_inputs(place, leave=("q",)),
        "column_params": list_view.hidden_inputs(place, leave=("q", "sort", "hide")),
        "query": place.query,
        "status": place.status,
        "counts_new": counts_new,
        "cutoff": utc_now().isoformat(timespec="microseconds"),
        "matching": words(total) if total and total > len(page.items) else "",
        "newer_words": _newer_words(place, page, newer),
        "newest_href": place.href(cursor=""),
        "begin": page.begin or "",
        "newer_href": place.href(cursor=page.previous) if page.previous and not at_newest else None,
        "older_href": place.href(cursor=page.next) if page.next else None,
        "searched_back_to": page.searched_back_to,
        "sorted_among": words(SORT_WINDOW)
        if place.sort != "enqueued" and len(page.items) >= MOST_SHOWN
        else "",
        "follows": counts_new and at_newest,
        "export_csv_href": place.href(f"{list_view.PATH}/export.csv", cursor=""),
        "export_json_href": place.href(f"{list_view.PATH}/export.json", cursor=""),
        "suggestions": await cached(request).get(
            "suggestions", 60.0, lambda: suggestions(connection), list[str]
        ),
    }


def _newer_words(place: Place, page: Page[JobView], newer: int) -> str:
    """What the way to the newest says above a page that begins further down; empty on the first one."""
    if place.wanted.scans:
        return "Show from the newest" if place.cursor and page.previous else ""
    count = f"{newer}+" if newer >= 100 else str(newer)
    what = "new" if place.sort == "enqueued" else "more before these"
    return f"{count} {what}, show" if newer else ""


async def suggestions(connection: AsyncConnection) -> list[str]:
    """What the search box offers: statuses, and the queues, jobs and arguments that there are."""
    found = [f"status:{status}" for status in STATUSES]
    queues = await connection.scalars(
        sa.select(JobCounter.queue).distinct().order_by(JobCounter.queue).limit(100)
    )
    found += [f"queue:{queue}" for queue in queues]
    offers = (
        await connection.execute(sa.select(JobCatalogue.name, JobCatalogue.parameters).limit(300))
    ).all()
    found += [f"job:{offer.name}" for offer in offers]
    arguments = {str(field.get("name")) for offer in offers for field in offer.parameters or ()}
    found += [f"args.{name}:" for name in sorted(arguments)[:100]]
    return [*found, "after:1h", "after:24h", "before:7d", "is:unresolved"]


# Export


@get(f"{list_view.PATH}/export.csv", guards=[viewer], opt=REPEATABLE)
async def export_csv(request: AnyRequest) -> Stream:
    return await _export(request, "csv", "text/csv; charset=utf-8")


@get(f"{list_view.PATH}/export.json", guards=[viewer], opt=REPEATABLE)
async def export_json(request: AnyRequest) -> Stream:
    return await _export(request, "json", "application/json")


async def _export(request: AnyRequest, kind: str, media_type: str) -> Stream:
    """Streams every matching job; who took them out of the desk is on record before the first one leaves."""
    place = read_place(request.query_params, utc_now())
    if place.problems:
        raise Invalid({"q": "; ".join(place.problems)})
    async with database(request).transaction() as session:
        await audit(
            session, actor(request), "job.export", "job", after={"format": kind, "filter": place.query}
        )
    lines = exports.csv_lines if kind == "csv" else exports.json_lines
    name = f"job-logs-{utc_now():%Y%m%d-%H%M%S}.{kind}"
    return Stream(
        lines(database(request), place.wanted, late_after_s(request)),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


routes = [job_logs, export_csv, export_json, *bulk.routes, *one_job.routes]
