"""The settings, read-only: what holds, which variable said so, and never a secret."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from litestar import Request, Response, get

from webapp import render
from webapp.auth import admin
from webapp.pages.shared import database
from webapp.queries.settings import upkeep
from worker.settings import Settings

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class SettingView:
    name: str
    value: str
    source: str
    """`environment`, `file` or `default`."""
    secret: bool
    about: str


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    settings: list[SettingView]


@dataclass(frozen=True, slots=True)
class Keeping:
    """One line of the retention table."""

    what: str
    keep_words: str
    last_run_at: datetime | None = None
    removed: int | None = None
    exempt: bool = False


GROUPS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Where things are": {
        "home": ("M_HOME", "The folder of this desk's own files"),
        "database_url": ("DATABASE_URL", "The database that holds the truth"),
        "nats_url": ("NATS_URL", "The broker whose messages wake the workers"),
        "redis_url": ("REDIS_URL", "The broker where there is no NATS, else the cache"),
        "prefix": ("M_PREFIX", "The first word of this desk's subjects on the broker"),
        "job_modules": ("M_JOB_MODULES", "The modules that workers import for their jobs"),
    },
    "The desk": {
        "host": ("M_HOST", "The address the web process listens at"),
        "port": ("M_PORT", "Its port"),
        "public_url": (
            "M_PUBLIC_URL",
            "The address people use: links, cookies and the origin check follow it",
        ),
        "trusted_proxies": ("M_TRUSTED_PROXIES", "Proxies whose X-Forwarded headers are believed"),
        "environment": ("M_ENVIRONMENT", "The badge beside the name"),
        "read_only": ("M_READ_ONLY", "Whether the desk shows everything and changes nothing"),
        "secret_key": ("M_SECRET_KEY", "Signs forms, encrypts secret arguments"),
    },
    "Jobs": {
        "worker_processes": ("M_WORKER_PROCESSES", "Processes that one m worker starts"),
        "worker_concurrency": ("M_WORKER_CONCURRENCY", "Jobs that one process runs at once"),
        "job_timeout_s": ("M_JOB_TIMEOUT_S", "Seconds a run may take, where the job says nothing"),
        "job_max_retries": ("M_JOB_MAX_RETRIES", "Retries after a failure, where the job says nothing"),
        "lease_s": ("M_LEASE_S", "Seconds without a beat after which a worker counts as dead"),
        "queue_max_depth": ("M_QUEUE_MAX_DEPTH", "Waiting jobs at which a queue refuses more"),
        "alert_backlog_age_s": ("M_ALERT_BACKLOG_AGE_S", "Seconds after which a waiting job is late"),
        "alert_backlog_depth": ("M_ALERT_BACKLOG_DEPTH", "Waiting jobs that call for attention"),
    },
    "Webhooks and retention": {
        "webhook_allow": ("M_WEBHOOK_ALLOW", "Inner networks and hosts that webhooks may reach"),
        "retention_days": ("M_RETENTION_DAYS", "Days that ended jobs are kept"),
    },
}
SECRETS: Final = ("secret_key",)


@get("/settings", guards=[admin])
async def show(request: AnyRequest) -> Response[str]:
    settings: Settings = request.app.state.engine.settings
    async with database(request).read() as connection:
        done = await upkeep(connection)
    return render.page(
        request,
        "settings/show.html",
        title="Settings",
        nav="settings",
        groups=[
            Group(title, [_view(settings, *item) for item in fields.items()])
            for title, fields in GROUPS.items()
        ],
        retention=[
            _keeping(
                "Ended jobs, with their attempts and logs",
                f"{settings.retention_days} days",
                done.get("job_logs"),
            ),
            _keeping("Events", "7 days, and until every webhook has seen them", done.get("outbox")),
            Keeping("Audit log", "for ever", exempt=True),
        ],
    )


def _keeping(what: str, words: str, done: Any) -> Keeping:
    return Keeping(what, words, done.last_run_at, done.removed) if done else Keeping(what, words)


def _view(settings: Settings, field: str, words: tuple[str, str]) -> SettingView:
    name, about = words
    secret = field in SECRETS
    value = getattr(settings, field)
    source = settings.sources.get(field, "default")
    return SettingView(
        name=name,
        value=("set" if value else "") if secret else _shown(value),
        source="file" if source.endswith("_FILE") else "default" if source == "default" else "environment",
        secret=secret,
        about=about,
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:g}"
    return without_password("" if value is None else str(value))


def without_password(url: str) -> str:
    """A URL as it may be shown: `nats://desk:***@host`. A name without a password is a token, and hidden too."""
    url = re.sub(
        r"://([^/@]*)@",
        lambda found: f"://{found[1].partition(':')[0] if ':' in found[1] else '***'}:***@",
        url,
    )
    return re.sub(r"([?&](?:password|token|sslpassword)=)[^&]*", r"\1***", url, flags=re.IGNORECASE)


SHOWN = {field for fields in GROUPS.values() for field in fields}
LEFT_OUT = {field.name for field in dataclasses.fields(Settings)} - SHOWN - {"sources", "environment_colour"}
assert not LEFT_OUT, f"the settings page does not show {LEFT_OUT}"

routes = [show]
