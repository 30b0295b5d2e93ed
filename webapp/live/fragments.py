"""Every live fragment by its name: its template, what it is loaded by, and which changes make it stale."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp.arguments import json_text
from webapp.live.lines import LogLines
from webapp.live.lists import NewJobs
from webapp.live.sources import Context, Fragment, FragmentSource, Ids, Load, Render, Source
from webapp.pages.bulk import load_operations
from webapp.pages.dead_letters import GROUPS
from webapp.pages.deliveries import delivery_context
from webapp.pages.events import pattern_of, rev_of
from webapp.pages.overview import PROBE, probe_view, surroundings
from webapp.pages.workers import broker, standing
from webapp.queries.attention import attention
from webapp.queries.counters import counters
from webapp.queries.deliveries import list_deliveries, load_deliveries, load_replays, one_delivery
from webapp.queries.deliveries import rev_of as deliveries_rev
from webapp.queries.events import newest
from webapp.queries.job_logs import load_jobs, load_whole_jobs
from webapp.queries.one_job import app_trace, attempts_of, doubts_of, same_error, state_path
from webapp.queries.overview import feed
from webapp.queries.queues import list_queues, load_queues
from webapp.queries.schedules import history, history_rev, load_schedules
from webapp.queries.views import JobView
from webapp.queries.webhooks import load_webhooks
from webapp.queries.workers import load_workers
from worker.db.base import utc_now
from worker.engine import Engine
from worker.events import patterns
from worker.joblogs.dead_letters import failure_groups, one_group
from worker.joblogs.models import JobLog

EVERY_SECOND: Final = 1.0
SETTLED_S: Final = 0.25
WEBHOOK_KINDS: Final = ("webhook", "webhook_log")
MOST_PATTERNS: Final = 20
"""How many different patterns one process follows for its pages in one look."""
EVERYTHING: Final = ("job", "queue", "worker", "catalogue", "schedule", "webhook")

More = Callable[[AsyncConnection, JobView], Awaitable[Context | None]]


def sources(render: Render, engine: Engine) -> list[Source]:
    """All that pages can watch."""
    found: list[Source] = [FragmentSource(fragment, render) for fragment in (*JOBS, *_others(engine))]
    return [*found, LogLines(render), NewJobs()]


# What depends on one job: read as soon as it changes


async def job_revs(connection: AsyncConnection, ids: Ids) -> Mapping[str, str]:
    """One SELECT for all the fragments that show a job."""
    found: dict[str, str] = {}
    wanted = uuids(ids)
    for start in range(0, len(wanted), 500):
        statement = sa.select(JobLog.id, JobLog.rev).where(JobLog.id.in_(wanted[start : start + 500]))
        found |= {str(row.id): str(row.rev) for row in await connection.execute(statement)}
    return found


async def job_rows(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    jobs = await load_jobs(connection, uuids(ids))
    return {str(of): {"job": job, "rev": job.rev} for of, job in jobs.items()}


def whole_jobs(more: More) -> Load:
    """Jobs with all they hold, and `more` of what the fragment needs beside; None leaves the job out."""

    async def load(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
        found: dict[str, Context] = {}
        for of, job in (await load_whole_jobs(connection, uuids(ids))).items():
            if (beside := await more(connection, job)) is not None:
                found[str(of)] = {"job": job, "rev": job.rev, **beside}
        return found

    return load


async def _path(_connection: AsyncConnection, job: JobView) -> Context:
    return {"path": state_path(job)}


async def _nothing(_connection: AsyncConnection, _job: JobView) -> Context:
    return {}


async def _attempts(connection: AsyncConnection, job: JobView) -> Context:
    return {"attempts": await attempts_of(connection, job)}


async def _error(connection: AsyncConnection, job: JobView) -> Context:
    return {
        "app_trace": app_trace(job.traceback),
        "same_error": await same_error(connection, job),
        "doubts": await doubts_of(connection, job),
    }


async def _result(_connection: AsyncConnection, job: JobView) -> Context:
    return {"result_text": json_text(job.result)}


async def _probe(_connection: AsyncConnection, job: JobView) -> Context | None:
    return {"probe": probe_view(job)} if job.job_name == PROBE else None


JOBS: Final = (
    Fragment("job-row", "job_logs/_row.html", job_rows, revs=job_revs),
    Fragment("job-header", "job_logs/_header.html", whole_jobs(_path), revs=job_revs),
    Fragment("job-facts", "job_logs/_facts.html", whole_jobs(_nothing), revs=job_revs),
    Fragment("job-attempts", "job_logs/_attempts.html", whole_jobs(_attempts), revs=job_revs),
    Fragment("job-error", "job_logs/_error.html", whole_jobs(_error), revs=job_revs),
    Fragment("job-result", "job_logs/_result.html", whole_jobs(_result), revs=job_revs),
    Fragment("probe", "overview/_probe.html", whole_jobs(_probe), revs=job_revs),
)


# What depends on one schedule and its last jobs: read at most once a second


async def _schedules(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_schedules(connection, uuids(ids))
    return {str(of): {"schedule": view, "rev": view.shown_rev} for of, view in found.items()}


async def _histories(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found: dict[str, Context] = {}
    for of in uuids(ids):
        fires, _ = await history(connection, of)
        found[str(of)] = {"schedule_id": of, "fires": fires, "rev": history_rev(fires)}
    return found


def _of_a_schedule(name: str, template: str, load: Load) -> Fragment:
    return Fragment(name, template, load, kinds=("schedule",), every_s=EVERY_SECOND)


SCHEDULES: Final = (
    _of_a_schedule("schedule", "schedules/_row.html", _schedules),
    _of_a_schedule("schedule-head", "schedules/_header.html", _schedules),
    _of_a_schedule("schedule-history", "schedules/_history.html", _histories),
)


# What depends on webhooks and their deliveries: read at most once a second


async def _webhooks(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_webhooks(connection, uuids(ids))
    return {str(of): {"webhook": view, "rev": view.shown_rev} for of, view in found.items()}


async def _newest_deliveries(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    """Read for everybody at once; the template leaves out what is not for the reader's role."""
    found: dict[str, Context] = {}
    for of in uuids(ids):
        page = await list_deliveries(connection, {"webhook_id": str(of)}, "admin")
        found[str(of)] = {"of": of, "deliveries": page.items, "rev": deliveries_rev(page.items)}
    return found


async def _deliveries(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_deliveries(connection, uuids(ids))
    return {
        str(of): {"delivery": view, "rev": view.rev, "live": True, "named": True}
        for of, view in found.items()
    }


async def _delivery_pages(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = {of: await one_delivery(connection, of, "admin") for of in uuids(ids)}
    return {str(of): delivery_context(whole) for of, whole in found.items() if whole is not None}


async def _replays(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_replays(connection, uuids(ids))
    return {str(of): {"replay": view, "rev": view.rev} for of, view in found.items()}


# What depends on many: read at most once a second


def _others(engine: Engine) -> list[Fragment]:
    late_after_s = engine.settings.alert_backlog_age_s

    async def queues(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
        found = await load_queues(connection, set(ids), late_after_s)
        return {name: _dated("queue", _fields(queue)) for name, queue in found.items()}

    async def navigation(connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
        found = await counters(connection, late_after_s)
        return {
            "all": _dated("counters", {"failed": found.failed, "running": found.running, "late": found.late})
        }

    async def needs(connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
        waiting = await list_queues(connection, late_after_s)
        around = await surroundings(engine, connection)
        found = attention(await failure_groups(connection), waiting, around, utc_now())
        rev = digest(found)
        return {"all": {"attention": found, "attention_rev": rev, "checked_at": utc_now(), "rev": rev}}

    async def workers(connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
        found = await standing(connection, late_after_s)
        rows = [_dated("worker", _fields(worker))["worker"] for worker in found["workers"]]
        who = [row["id"] for row in rows]  # each has a revision of its own
        return {"all": {**found, "workers": rows, "rev": digest([who, found["unserved"], found["nobody"]])}}

    async def brokers(_connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
        return {"all": _dated("broker", await broker(engine))}

    return [
        _slow("counters", "shell/_counters.html", navigation, "job"),
        _slow("attention", "overview/_attention.html", needs, *EVERYTHING),
        _slow("feed", "overview/_feed.html", _feed, "job"),
        _slow("events", "events/_stream.html", _events, "event"),
        _slow("queue", "overview/_queue.html", queues, "job", "queue", "worker"),
        _slow("worker", "workers/_worker.html", _workers, "job", "worker"),
        _slow("standing", "workers/_list.html", workers, "job", "queue", "worker"),
        *SCHEDULES,
        *WEBHOOKS,
        _slow("broker", "workers/_broker.html", brokers, "worker"),
        _slow("dead-letters", "dead_letters/_groups.html", _dead_letters, "job"),
        Fragment("dead-letter", "dead_letters/_group.html", _dead_letter, whole=True, every_s=EVERY_SECOND),
        Fragment(
            "operation", "job_logs/_operation.html", _operations, kinds=("operation",), every_s=EVERY_SECOND
        ),
    ]


WEBHOOKS: Final = (
    Fragment("webhook", "webhooks/_row.html", _webhooks, WEBHOOK_KINDS, whole=True, every_s=EVERY_SECOND),
    Fragment(
        "webhook-head", "webhooks/_header.html", _webhooks, WEBHOOK_KINDS, whole=True, every_s=EVERY_SECOND
    ),
    Fragment(
        "deliveries",
        "webhooks/_deliveries.html",
        _newest_deliveries,
        ("webhook_log",),
        whole=True,
        every_s=EVERY_SECOND,
    ),
    Fragment("delivery", "webhooks/_delivery_row.html", _deliveries, ("webhook_log",)),
    Fragment("delivery-page", "webhooks/_delivery.html", _delivery_pages, ("webhook_log",)),
    Fragment("replay", "webhooks/_replay.html", _replays, ("webhook_replay",), every_s=EVERY_SECOND),
)


def _slow(name: str, template: str, load: Load, *kinds: str) -> Fragment:
    return Fragment(name, template, load, kinds=kinds, whole=True, every_s=EVERY_SECOND, settle_s=SETTLED_S)


async def _feed(connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
    found = await feed(connection)
    return {"all": {"feed": found, "rev": found[0].event_id if found else ""}}


async def _events(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    """Read for everybody at once; the template leaves out what is not for the reader's role."""
    found: dict[str, Context] = {}
    for of in list(ids)[:MOST_PATTERNS]:
        pattern = pattern_of(of)
        if patterns.problem(pattern) is None:
            events = (await newest(connection, pattern, "admin")).items
            found[of] = {"events": events, "live_id": of, "following": True, "rev": rev_of(events)}
    return found


async def _workers(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_workers(connection, uuids(ids))
    return {str(of): _dated("worker", _fields(worker)) for of, worker in found.items()}


async def _dead_letters(connection: AsyncConnection, _ids: Ids) -> Mapping[str, Context]:
    found = await failure_groups(connection, GROUPS)
    return {"all": {"groups": found, "live": True, "rev": digest(found)}}


async def _dead_letter(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = {of: await one_group(connection, of) for of in ids}
    return {of: {"group": group, "rev": digest(group)} for of, group in found.items() if group is not None}


async def _operations(connection: AsyncConnection, ids: Ids) -> Mapping[str, Context]:
    found = await load_operations(connection, uuids(ids))
    return {str(of): {"operation": operation, "rev": operation["rev"]} for of, operation in found.items()}


def _fields(view: Any) -> dict[str, Any]:
    """A view's fields by name, its jobs as they are."""
    return {name: getattr(view, name) for name in view.__dataclass_fields__}


def _dated(name: str, fields: dict[str, Any]) -> Context:
    """The context of a template whose subject has no revision of its own, or shows more than that revision counts."""
    rev = digest({key: value for key, value in fields.items() if key != "rev"})
    return {name: {**fields, "rev": rev}, "rev": rev}


def uuids(ids: Ids) -> list[UUID]:
    """Those that are UUIDs: a page may name anything."""
    found = []
    for of in ids:
        try:
            found.append(UUID(of))
        except ValueError:
            continue
    return found


def digest(value: Any) -> str:
    """A revision for what has none of its own: differs when what is shown differs."""
    return "h" + hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
