"""Job logs as CSV and JSON, chunk by chunk: no transaction stays open, however many there are."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from webapp.queries.job_logs import stream_jobs
from webapp.queries.views import JobView
from worker.db.session import Database
from worker.joblogs.search import JobFilter

FIELDS = (
    "job_id", "job_name", "queue", "priority", "status", "reason", "args", "result", "error", "enqueued_at", "run_at",
    "started_at", "completed_at", "duration_seconds", "attempt", "max_retries", "worker", "user", "scheduled_job",
    "rerun_of", "tags", "note",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A cell that begins with one of these is a formula to a spreadsheet."""


async def csv_lines(database: Database, wanted: JobFilter, late_after_s: float) -> AsyncIterator[bytes]:
    yield "\ufeff".encode() + _csv([list(FIELDS)])
    async for jobs in stream_jobs(database, wanted, late_after_s=late_after_s):
        yield _csv([[_cell(getattr(job, name)) for name in FIELDS] for job in jobs])


async def json_lines(database: Database, wanted: JobFilter, late_after_s: float) -> AsyncIterator[bytes]:
    """One JSON array."""
    first = True
    yield b"["
    async for jobs in stream_jobs(database, wanted, late_after_s=late_after_s):
        for job in jobs:
            yield (b"\n" if first else b",\n") + _object(job)
            first = False
    yield b"\n]\n"


def _csv(rows: list[list[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    """Text that a spreadsheet shows and does not compute."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    if isinstance(value, dict | list | tuple | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = _plain(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _object(job: JobView) -> bytes:
    plain = {name: getattr(job, name) for name in FIELDS}
    return json.dumps(plain, ensure_ascii=False, default=_plain).encode("utf-8", "replace")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
