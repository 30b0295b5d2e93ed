"""The overview: what needs a person, the queues, how fast it goes, where it fails, what just happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.auth import actor, operator, viewer
from webapp.pages import limits, queues
from webapp.pages.shared import Answer, AnyRequest, acting, address, cached, database, engine, late_after_s
from webapp.queries.attention import Attention, Surroundings, attention
from webapp.queries.catalogue import unoffered
from webapp.queries.job_logs import one_job
from webapp.queries.overview import (
    CHARTS,
    GRID,
    Bucket,
    GridRow,
    Latency,
    failure_grid,
    feed,
    latencies,
    throughput,
)
from webapp.queries.queues import QueueView, list_queues
from webapp.queries.schedules import late_schedules
from webapp.queries.views import JobView
from webapp.queries.webhook_trouble import troubled_webhooks
from worker.db.base import utc_now
from worker.engine import Engine
from worker.errors import UnknownJob
from worker.joblogs import actions
from worker.joblogs.dead_letters import failure_groups

PROBE = "desk.probe"
KEPT_S = {"1h": 5.0, "24h": 60.0, "7d": 300.0}
"""How long a chart's answer serves everybody."""


@get("/", guards=[viewer])
async def show(request: AnyRequest) -> Answer:
    period = request.query_params.get("period", "1h")
    period = period if period in CHARTS else "1h"
    async with database(request).read() as connection:
        queues = await list_queues(connection, late_after_s(request))
        context = {
            "queues": queues,
            "attention": await _attention(request, connection, queues),
            "throughput": await _kept(
                request, f"throughput {period}", period, lambda: throughput(connection, period), list[Bucket]
            ),
            "latency": await _kept(
                request, f"latency {period}", period, lambda: latencies(connection, period), list[Latency]
            ),
            "failures": _grid(
                await cached(request).get("grid", 5.0, lambda: failure_grid(connection), list[GridRow])
            ),
            "feed": await cached(request).get("feed", 1.0, lambda: feed(connection)),
            "probe": await _probe(
                connection, request.query_params.get("probe", ""), request.query_params.get("ms", "")
            ),
        }
    return render.page(
        request,
        "overview/show.html",
        title="Overview",
        nav="overview",
        checked_at=utc_now(),
        period=period,
        periods=[{"key": key, "label": key, "href": address("/", [("period", key)])} for key in CHARTS],
        **context,
    )


async def _kept(request: AnyRequest, key: str, period: str, ask: Any, kind: Any) -> Any:
    return await cached(request).get(key, KEPT_S[period], ask, kind)


async def _attention(
    request: AnyRequest, connection: AsyncConnection, queues: list[QueueView]
) -> list[Attention]:
    groups = await cached(request).get("groups", 2.0, lambda: failure_groups(connection))
    around = await cached(request).get("around", 2.0, lambda: surroundings(engine(request), connection))
    return attention(groups, queues, around, utc_now())


async def surroundings(running: Engine, connection: AsyncConnection) -> Surroundings:
    """What this process sees of the machinery around it."""
    late, late_at = await late_schedules(connection, utc_now())
    return Surroundings(
        broker_connected=running.doorbells.connected,
        backplane_connected=running.socket.connected,
        late_after_s=running.settings.alert_backlog_age_s,
        too_many=running.settings.alert_backlog_depth,
        unoffered=await unoffered(connection),
        late_schedules=late,
        late_schedule_at=late_at,
        webhooks=await troubled_webhooks(connection, utc_now()),
    )


def _grid(rows: list[GridRow]) -> dict[str, Any]:
    """Each count with the address of the rows behind it."""

    def href(job: str, window: str) -> str:
        return address("/job-logs", [("status", "failed"), ("f", f"job:{job}"), ("f", f"ended:{window}")])

    return {
        "windows": list(GRID),
        "rows": [
            {
                "job_name": row.job_name,
                "href": address("/job-logs", [("f", f"job:{row.job_name}")]),
                "cells": [{"count": n, "href": href(row.job_name, name)} for name, n in row.cells.items()],
            }
            for row in rows
        ],
    }


# The probe: desk -> database -> broker -> worker -> desk


@post("/overview/probe", guards=[operator])
async def probe(request: AnyRequest) -> Answer:
    """Runs the built-in job, so that each hop's time can be seen."""
    began = utc_now()
    try:
        async with acting(request) as session:
            job = await actions.enqueue(session, PROBE, {}, actor=actor(request), tags=("probe",))
    except UnknownJob:
        return render.redirect(request, "/", "No worker has said yet what it can run: start one.", "error")
    committed_ms = (utc_now() - began).total_seconds() * 1000
    return render.redirect(request, address("/", [("probe", job.id), ("ms", f"{committed_ms:.1f}")]))


async def _probe(connection: AsyncConnection, job_id: str, ms: str) -> dict[str, Any] | None:
    try:
        job = await one_job(connection, UUID(job_id)) if job_id else None
        committed_ms = float(ms) if ms and len(ms) < 12 else None
    except ValueError:
        return None
    return probe_view(job, committed_ms) if job is not None and job.job_name == PROBE else None


def probe_view(job: JobView, committed_ms: float | None = None) -> dict[str, Any]:
    """What overview/_probe.html shows."""
    return {
        "job_id": job.job_id,
        "rev": job.rev,
        "done": job.completed_at is not None,
        "total_ms": _ms(job.enqueued_at, job.completed_at, whole=True),
        "hops": [
            {"name": "desk to database", "ms": committed_ms},
            {"name": "broker to worker", "ms": _ms(job.enqueued_at, job.started_at)},
            {"name": "worker", "ms": _ms(job.started_at, job.completed_at)},
        ],
    }


def _ms(start: datetime | None, end: datetime | None, *, whole: bool = False) -> float | None:
    if start is None or end is None:
        return None
    found = max(0.0, (end - start).total_seconds() * 1000)
    return round(found) if whole else found


routes = [show, probe, *queues.routes, *limits.routes]
