"""The audit log: who did what, filtered, and exported as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.response import Stream

from webapp import render
from webapp.auth import actor, admin
from webapp.queries import audit as queries
from webapp.queries.audit import AuditFilter, EntryView
from worker.accounts.audit import audit
from worker.db.base import utc_now
from worker.errors import Invalid

AnyRequest = Request[Any, Any, Any]

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet would calculate (OWASP: CSV injection)."""


@get("/audit", guards=[admin])
async def audit_log(request: AnyRequest) -> Response[Any]:
    wanted = _filter(request)
    before, after = _key(request, "before"), _key(request, "after")
    async with request.app.state.engine.database.read() as connection:
        page = await queries.page(connection, wanted, before=before, after=after)
        actions = await queries.actions(connection)
    return render.page(
        request,
        "audit/list.html",
        title="Audit log",
        nav="audit",
        entries=page.entries,
        filter=wanted,
        actions=actions,
        filtered=wanted != AuditFilter(),
        newer_href=_href(wanted, after=page.newer) if page.newer else None,
        older_href=_href(wanted, before=page.older) if page.older else None,
        export_href=_href(wanted, path="/audit/export"),
        seal=None,
    )


@get("/audit/export", guards=[admin])
async def export(request: AnyRequest) -> Stream:
    """Streams every matching entry; that it was exported is an entry too."""
    wanted, database = _filter(request), request.app.state.engine.database
    async with database.transaction() as session:
        await audit(session, actor(request), "audit.export", "audit", after=msgspec.to_builtins(wanted))
    name = f"audit-{utc_now():%Y-%m-%d-%H%M%S}.csv"
    return Stream(
        _csv(queries.pieces(database, wanted)),
        media_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _csv(pieces: AsyncIterator[list[EntryView]]) -> AsyncIterator[bytes]:
    yield _lines([EntryView.__slots__])
    async for entries in pieces:
        yield _lines([[_cell(getattr(entry, name)) for name in EntryView.__slots__] for entry in entries])


def _lines(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        value = msgspec.json.encode(value).decode()
    elif hasattr(value, "isoformat"):
        value = value.isoformat(timespec="microseconds")
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _filter(request: AnyRequest) -> AuditFilter:
    given = {
        name: request.query_params.get(name, "").strip() for name in ("actor", "action", "object", "denied")
    }
    if any(len(value) > 200 or "\x00" in value for value in given.values()):
        raise Invalid({"filter": "is longer than 200 characters"})
    return AuditFilter(given["actor"], given["action"], given["object"], given["denied"] not in ("", "0"))


def _key(request: AnyRequest, name: str) -> UUID | None:
    value = request.query_params.get(name)
    try:
        return UUID(value) if value else None
    except ValueError:
        raise Invalid({name: "is not the id of an entry"}) from None


def _href(wanted: AuditFilter, *, path: str = "/audit", **keys: UUID) -> str:
    given = {"actor": wanted.actor, "action": wanted.action, "object": wanted.object}
    values = {name: value for name, value in given.items() if value} | (
        {"denied": "1"} if wanted.denied else {}
    )
    query = urlencode(values | {name: str(value) for name, value in keys.items()})
    return f"{path}?{query}" if query else path


routes = [audit_log, export]
