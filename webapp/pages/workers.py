"""The workers page: who runs, what they hold, and how the broker is."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.auth import actor, operator, viewer
from webapp.pages.after import came_from
from webapp.pages.shared import Answer, AnyRequest, acting, cached, database, engine, gone, late_after_s
from webapp.queries.queues import list_queues
from webapp.queries.workers import list_workers, load_workers
from worker.engine import Engine
from worker.errors import NotFound
from worker.process import actions
from worker.process.actions import WISHES, Wish
from worker.queue.lanes import BANDS, RESCUE

STATS_TIMEOUT_S = 2.0
COUNTS = ("pending", "ack_pending", "redelivered")
LANES = [RESCUE, *BANDS]
KINDS = {"nats": "NATS JetStream", "redis": "Redis Streams"}


@get("/workers", guards=[viewer])
async def workers(request: AnyRequest) -> Answer:
    async with database(request).read() as connection:
        found = await standing(connection, late_after_s(request))
    return render.page(
        request,
        "workers/list.html",
        title="Workers",
        nav="workers",
        **found,
        broker=await cached(request).get("broker", 1.0, lambda: broker(engine(request))),
    )


async def standing(connection: AsyncConnection, late_after_s: float) -> dict[str, Any]:
    """What workers/_list.html shows."""
    found = await list_workers(connection)
    unserved = [
        {"queue": queue.name, "waiting": queue.waiting, "oldest_at": queue.oldest_at}
        for queue in await list_queues(connection, late_after_s)
        if queue.waiting and not queue.has_worker
    ]
    nobody = bool(found) and not any(worker.takes_jobs for worker in found)
    return {"workers": found, "unserved": unserved, "nobody": nobody}


async def broker(engine: Engine) -> dict[str, Any]:
    """What workers/_broker.html shows; a broker that does not answer in time is trouble, not an error."""
    stats: dict[str, Any] = {}
    try:
        stats = await asyncio.wait_for(engine.doorbells.stats(), STATS_TIMEOUT_S)
        trouble = None if engine.doorbells.connected else "The broker cannot be reached."
    except (OSError, TimeoutError):
        trouble = "The broker does not answer."
    stream = stats.get("stream")
    return {
        "kind": KINDS.get(engine.settings.transport, "In this process")
        + (f" on {stats['product']}" if "product" in stats else ""),
        "connected": engine.doorbells.connected,
        "url": stats.get("url") or "",
        "version": stats.get("version") or "",
        "trouble": trouble,
        "sync_words": stats.get("sync"),
        "streams": [stream] if stream else [],
        "consumers": [
            {
                **one,
                "name": f"{one['queue']} · {one['lane']}",
                "idle": not any(one[count] for count in COUNTS),
            }
            for one in sorted(
                stats.get("consumers", ()), key=lambda one: (one["queue"], LANES.index(one["lane"]))
            )
        ],
    }


@post("/workers/{worker_id:uuid}/drain", guards=[operator])
async def drain(request: AnyRequest, worker_id: UUID) -> Answer:
    return await _wish(request, worker_id, "drain")


@post("/workers/{worker_id:uuid}/restart", guards=[operator])
async def restart(request: AnyRequest, worker_id: UUID) -> Answer:
    return await _wish(request, worker_id, "restart")


async def _wish(request: AnyRequest, worker_id: UUID, wish: Wish) -> Answer:
    try:
        async with acting(request) as session:
            await actions.ask(session, worker_id, wish, actor=actor(request))
    except NotFound:
        return gone(request, "worker", "/workers")
    if not request.headers.get("hx-request"):
        return render.redirect(request, came_from(request, "/workers"), WISHES[wish])
    async with database(request).read() as connection:
        found = await load_workers(connection, [worker_id])
    return render.fragment(request, "workers/_after.html", flash=WISHES[wish], worker=found[worker_id])


routes = [workers, drain, restart]
