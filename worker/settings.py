"""The configuration: one frozen value read from the environment, all mistakes reported at once."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from worker.errors import SettingsError
from worker.webhooks.addresses import entry_problem

WORD = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}\Z")
"""What a queue, a prefix or one word of an event type may look like."""

ON = ("on", "true", "yes", "1")
OFF = ("off", "false", "no", "0")

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """Everything the environment decides. Times ending in `_s` are seconds; see docs/settings.md."""

    database_url: str
    secret_key: str
    nats_url: str | None = None
    redis_url: str | None = None
    home: Path = Path(".m")
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    job_modules: tuple[str, ...] = ()
    prefix: str = "framework"
    webhook_allow: tuple[str, ...] = ()
    worker_processes: int = 1
    worker_concurrency: int = 10
    job_timeout_s: float = 300.0
    job_max_retries: int = 3
    lease_s: float = 15.0
    queue_max_depth: int = 1_000_000
    alert_backlog_age_s: float = 300.0
    alert_backlog_depth: int = 10_000
    retention_days: int = 30
    environment: str = ""
    environment_colour: str = ""
    read_only: bool = False
    """The web process shows everything and changes nothing; workers and the command line go on."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Which variable (or "default") gave each field, for the settings page."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Reads `environ` (default: the process's own).

        Raises:
            SettingsError: naming every wrong variable, its value and what is allowed.
        """
        return _Reader(os.environ if environ is None else environ).settings()

    @property
    def base_url(self) -> str:
        """The address people use, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def dialect(self) -> str:
        return "sqlite" if self.database_url.startswith("sqlite") else "postgresql"

    @property
    def transport(self) -> str:
        return "nats" if self.nats_url else "redis" if self.redis_url else "memory"

    def __repr__(self) -> str:
        return f"Settings(dialect={self.dialect!r}, transport={self.transport!r}, home={str(self.home)!r})"


class _Reader:
    """Reads one variable after the other and keeps the mistakes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.mistakes: list[str] = []
        self.sources: dict[str, str] = {}

    def settings(self) -> Settings:
        home = Path(self.text("home", "M_HOME", ".m")).absolute()
        host = self.text("host", "M_HOST", "127.0.0.1")
        name, _, colour = self.text("environment", "M_ENVIRONMENT", "").partition(":")
        values: dict[str, Any] = {
            "home": home,
            "host": host,
            "port": self.number("port", "M_PORT", 8000, int, 1, 65535),
            "database_url": self.database_url(home),
            "nats_url": self.url("nats_url", "NATS_URL", ("nats", "tls", "ws", "wss")),
            "redis_url": self.url("redis_url", "REDIS_URL", ("redis", "rediss", "unix")),
            "public_url": self.url("public_url", "M_PUBLIC_URL", ("http", "https")),
            "trusted_proxies": self.networks("trusted_proxies", "M_TRUSTED_PROXIES"),
            "job_modules": self.modules(),
            "prefix": self.word("prefix", "M_PREFIX", "framework"),
            "webhook_allow": self.webhook_allow(),
            "worker_processes": self.number("worker_processes", "M_WORKER_PROCESSES", 1, int, 1, 256),
            "worker_concurrency": self.number(
                "worker_concurrency", "M_WORKER_CONCURRENCY", 10, int, 1, 10_000
            ),
            "job_timeout_s": self.number("job_timeout_s", "M_JOB_TIMEOUT_S", 300.0, float, 0.001, 31_536_000),
            "job_max_retries": self.number("job_max_retries", "M_JOB_MAX_RETRIES", 3, int, 0, 1000),
            "lease_s": self.number("lease_s", "M_LEASE_S", 15.0, float, 1.0, 3600.0),
            "queue_max_depth": self.number("queue_max_depth", "M_QUEUE_MAX_DEPTH", 1_000_000, int, 1, 10**12),
            "alert_backlog_age_s": self.number(
                "alert_backlog_age_s", "M_ALERT_BACKLOG_AGE_S", 300.0, float, 1.0, 31_536_000
            ),
            "alert_backlog_depth": self.number(
                "alert_backlog_depth", "M_ALERT_BACKLOG_DEPTH", 10_000, int, 1, 10**12
            ),
            "retention_days": self.number("retention_days", "M_RETENTION_DAYS", 30, int, 1, 36_500),
            "environment": name.strip(),
            "environment_colour": self.colour(colour.strip()),
            "read_only": self.switch("read_only", "M_READ_ONLY"),
            "secret_key": self.secret_key(home, host),
        }
        if values["redis_url"] and not all(find_spec(name) for name in ("redis", "taskiq_redis")):
            self.mistakes.append(
                'REDIS_URL is set, but the Redis client is not installed: run pip install "m-desk[redis]", or unset REDIS_URL'
            )
        if self.mistakes:
            raise SettingsError(count=len(self.mistakes), mistakes="; ".join(self.mistakes))
        return Settings(**values, sources=self.sources)

    def raw(self, field_name: str, variable: str) -> str | None:
        """The variable's value, or the content of the file that `<variable>_FILE` names."""
        path = self.environ.get(f"{variable}_FILE")
        if path:
            self.sources[field_name] = f"{variable}_FILE"
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                self.wrong(f"{variable}_FILE", path, f"a readable text file ({error})")
                return None
        value = self.environ.get(variable)
        self.sources[field_name] = variable if value else "default"
        return value.strip() if value else None

    def wrong(self, variable: str, value: str, allowed: str) -> None:
        self.mistakes.append(f"{variable}={value!r} is not allowed: it must be {allowed}")

    def text(self, field_name: str, variable: str, default: str) -> str:
        return self.raw(field_name, variable) or default

    def word(self, field_name: str, variable: str, default: str) -> str:
        value = self.text(field_name, variable, default)
        if not WORD.match(value):
            self.wrong(
                variable, value, "a word of a-z, 0-9, _ and - that begins with a letter or digit, at most 63"
            )
        return value

    def words(self, field_name: str, variable: str) -> tuple[str, ...]:
        value = self.raw(field_name, variable) or ""
        return tuple(part.strip() for part in value.split(",") if part.strip())

    def number(
        self, field_name: str, variable: str, default: N, kind: Callable[[str], N], low: float, high: float
    ) -> N:
        value = self.raw(field_name, variable)
        if value is None:
            return default
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            self.wrong(variable, value, f"a number from {low:g} to {high:g}")
            return default
        return number

    def switch(self, field_name: str, variable: str) -> bool:
        value = (self.raw(field_name, variable) or "off").lower()
        if value not in (*ON, *OFF):
            self.wrong(variable, value, f"one of {', '.join(ON)} or of {', '.join(OFF)}")
        return value in ON

    def url(self, field_name: str, variable: str, schemes: tuple[str, ...]) -> str | None:
        value = self.raw(field_name, variable)
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            good = (
                parts.scheme in schemes and bool(parts.netloc or parts.scheme == "unix") and parts.port != 0
            )
        except ValueError:
            good = False
        if not good:
            allowed = " or ".join(f"{s}://…" for s in schemes)
            self.wrong(variable, without_password(value), f"a URL like {allowed}")
        return value

    def networks(self, field_name: str, variable: str) -> tuple[str, ...]:
        values = self.words(field_name, variable)
        for value in values:
            try:
                ip_network(value, strict=False)
            except ValueError:
                self.wrong(variable, value, "addresses or networks like 10.0.0.0/8, joined by commas")
        return values

    def webhook_allow(self) -> tuple[str, ...]:
        values = self.words("webhook_allow", "M_WEBHOOK_ALLOW")
        for value in values:
            if problem := entry_problem(value):
                self.mistakes.append(f"M_WEBHOOK_ALLOW={value!r} is not allowed: it {problem}")
        return values

    def modules(self) -> tuple[str, ...]:
        values = self.words("job_modules", "M_JOB_MODULES")
        for value in values:
            if not all(part.isidentifier() for part in value.split(".")):
                self.wrong(
                    "M_JOB_MODULES", value, "importable module names like myapp.jobs, joined by commas"
                )
        return values

    def colour(self, value: str) -> str:
        allowed = ("", "red", "amber", "green", "blue", "grey")
        if value not in allowed:
            self.wrong("M_ENVIRONMENT", value, "NAME or NAME:COLOUR with red, amber, green, blue or grey")
        return value

    def database_url(self, home: Path) -> str:
        value = self.raw("database_url", "DATABASE_URL")
        if value is None:
            return f"sqlite+aiosqlite:///{home / 'desk.db'}"
        for given, driver in (
            ("sqlite://", "sqlite+aiosqlite://"),
            ("postgresql://", "postgresql+asyncpg://"),
            ("postgres://", "postgresql+asyncpg://"),
        ):
            if value.startswith(given):
                value = driver + value.removeprefix(given)
        if not value.startswith(("sqlite+aiosqlite:///", "postgresql+asyncpg://")) or ":memory:" in value:
            self.wrong("DATABASE_URL", without_password(value), "postgresql://… or sqlite:///path of a file")
        return value

    def secret_key(self, home: Path, host: str) -> str:
        value = self.raw("secret_key", "M_SECRET_KEY")
        if value is not None:
            if len(value) < 32:
                self.mistakes.append("M_SECRET_KEY is too short: it must be at least 32 characters")
            return value
        if not _is_loopback(host):
            self.mistakes.append(
                f"M_SECRET_KEY is not set: M_HOST={host!r} is reachable from outside, so it must be at least 32 characters"
            )
            return ""
        try:
            return _kept_key(home / "secret.key")
        except OSError as error:
            self.wrong("M_HOME", str(home), f"a folder this program may write to ({error})")
            return ""


def _kept_key(path: Path) -> str:
    """The key of this home, made at its first use; several processes may start at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        for _ in range(100):
            if key := path.read_text(encoding="ascii").strip():
                return key
            time.sleep(0.01)  # another process has made the file and is about to write it
        raise OSError(f"{path} is empty: delete it to have a new key made") from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_password(url: str) -> str:
    return re.sub(r"://([^:/@]*):[^@/]*@", r"://\1:***@", url)
