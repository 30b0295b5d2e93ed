"""One action on many jobs: previewed, confirmed, then carried out in the background and reported."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from litestar import get, post
from sqlalchemy.ext.asyncio import AsyncConnection

from webapp import render
from webapp.arguments import json_text, read_json
from webapp.auth import actor, operator, viewer
from webapp.forms import Form, read_form
from webapp.pages.after import came_from
from webapp.pages.shared import Answer, AnyRequest, acting, address, database, gone
from webapp.queries.counters import CAP
from worker.db.base import utc_now
from worker.errors import Invalid, NotAllowedNow, NotFound
from worker.joblogs import bulk
from worker.joblogs.models import Operation
from worker.joblogs.states import is_terminal

DONE = {
    "retry": "retried",
    "cancel": "cancelled",
    "resolve": "resolved",
    "delete": "deleted",
    "rerun": "run again",
}
VERB = {"rerun": "run again"}
"""What an action is called in a sentence, where that is not its own name."""


@post("/job-logs/bulk", guards=[operator])
async def act(request: AnyRequest) -> Answer:
    """First shows what would happen; the confirmed form starts it, and names the same rows."""
    form = await read_form(request)
    form.check()
    action, cutoff = form.words("action"), _cutoff(form)
    try:
        wanted = _wanted(form)
        bulk.check(action, wanted)
        if not form.flag("confirmed"):
            return await preview(request, form, action, wanted, cutoff)
        async with acting(request) as session:
            operation = await bulk.start(
                session,
                action,
                wanted,
                cutoff=cutoff,
                reason=form.words("reason")[:500],
                actor=actor(request),
            )
    except (Invalid, NotFound) as error:
        return render.redirect(request, came_from(request, "/job-logs"), error.message, "error")
    return render.redirect(request, f"/operations/{operation.id}")


def _wanted(form: Form) -> dict[str, Any]:
    """All that match the search, or the selected ones."""
    args = {"args": read_json(form.text("args"))} if form.words("args") else {}
    if form.words("scope") == "matching":
        return {"q": form.words("query") or "before:0s", **args}
    return {"ids": form.many("id"), **args}


def _cutoff(form: Form) -> datetime:
    """When the person saw the list: what came later is not meant."""
    try:
        at = datetime.fromisoformat(form.words("cutoff"))
    except ValueError:
        return utc_now()
    return min(at, utc_now()) if at.tzinfo else utc_now()


async def preview(
    request: AnyRequest, form: Form, action: str, wanted: dict[str, Any], cutoff: datetime
) -> Answer:
    """What would happen, and the form that makes it happen to the same rows."""
    db = database(request)
    async with db.read() as connection:
        seen = await bulk.preview(connection, db.dialect, action, wanted, cutoff)
    hidden = [("action", action), ("cutoff", cutoff.isoformat()), ("confirmed", "1")]
    hidden += [(name, value) for name in ("scope", "query", "args") if (value := form.words(name))]
    hidden += [("id", job_id) for job_id in wanted.get("ids", ())]
    left = seen.matching - seen.will
    words = "10k+ jobs" if seen.matching > CAP else f"{seen.matching} job{'' if seen.matching == 1 else 's'}"
    return render.page(
        request,
        "job_logs/bulk.html",
        title=f"{action.capitalize()} {words}",
        nav="job_logs",
        action=action,
        verb=VERB.get(action, action),
        changes=json_text(wanted["args"]) if wanted.get("args") else "",
        count_words=words,
        will=seen.will,
        cannot=[(left, f"they cannot be {DONE[action]} as they are")] if left > 0 else [],
        later=seen.later if wanted.get("q") else 0,
        hidden=hidden,
        back_href=came_from(request, "/job-logs"),
    )


# The operation


@get("/operations/{operation_id:uuid}", guards=[viewer])
async def show(request: AnyRequest, operation_id: UUID) -> Answer:
    async with database(request).read() as connection:
        operations = await load_operations(connection, [operation_id])
    if operation_id not in operations:
        return gone(request, "operation", "/job-logs")
    operation = operations[operation_id]
    return render.page(
        request,
        "job_logs/operation.html",
        title=f"{VERB.get(operation['action'], operation['action']).capitalize()} in bulk",
        nav="job_logs",
        operation=operation,
    )


@post("/operations/{operation_id:uuid}/stop", guards=[operator])
async def stop(request: AnyRequest, operation_id: UUID) -> Answer:
    url = f"/operations/{operation_id}"
    try:
        async with acting(request) as session:
            await bulk.stop(session, operation_id, actor=actor(request))
    except NotFound:
        return gone(request, "operation", "/job-logs")
    except NotAllowedNow:
        return render.redirect(request, url, "It had ended already.")
    return render.redirect(request, url, "It stops after the jobs under way.")


async def load_operations(connection: AsyncConnection, ids: list[UUID]) -> dict[UUID, dict[str, Any]]:
    """What job_logs/_operation.html shows of each."""
    rows = await connection.execute(sa.select(Operation.__table__).where(Operation.id.in_(ids)))
    return {row["id"]: _shown(dict(row)) for row in rows.mappings()}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    done, total = row["done"] + row["refused"], row["total"]
    query = row["filter"].get("q") or ""
    return {
        **row,
        "done_word": DONE.get(row["action"], "done"),
        "share": min(1.0, done / total) if total else (1.0 if row["ended_at"] else 0.0),
        "query": query,
        "query_href": address("/job-logs", [("q", query)]) if query else None,
        "count_of_ids": len(row["filter"].get("ids") or ()),
        "reason": row["filter"].get("reason") or "",
        "changes": json_text(row["filter"]["args"]) if row["filter"].get("args") else "",
        "ended": is_terminal(row["status"]) or row["ended_at"] is not None,
    }


routes = [act, show, stop]
