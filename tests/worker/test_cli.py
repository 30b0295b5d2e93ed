"""The `m` command as a person types it: real processes on both databases, one line for each mistake."""

import asyncio
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
import structlog

from tests.desk import SECRET_KEY, Desk
from worker import cli
from worker.db.base import new_id, utc_now
from worker.engine import Engine
from worker.joblogs.models import Effect, JobLog, Operation
from worker.jobs.registry import Registry
from worker.process.models import Worker
from worker.settings import Settings

NOWHERE = "0192f000-0000-7000-8000-000000000000"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nfake"


class Shell:
    """Runs `m` inside this process, as `main` would: a process of its own takes a second to start."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        self.monkeypatch, self.capsys, self.home = monkeypatch, capsys, home
        self.set(M_HOME=str(home), M_SECRET_KEY=SECRET_KEY)

    def set(self, **environ: str) -> None:
        for name, value in environ.items():
            self.monkeypatch.setenv(name, value)

    def m(self, *arguments: str, stdin: str = "", check: bool = False) -> "subprocess.CompletedProcess[str]":
        self.monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        self.capsys.readouterr()
        code = cli.run(arguments)
        out, err = self.capsys.readouterr()
        assert not (check and code), err
        return subprocess.CompletedProcess(arguments, code, out, err)


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Shell]:
    """An empty home, no database, no broker, no job modules."""
    for name in ("DATABASE_URL", "NATS_URL", "REDIS_URL", "M_JOB_MODULES"):
        monkeypatch.delenv(name, raising=False)
    yield Shell(monkeypatch, capsys, tmp_path / "home")
    structlog.reset_defaults()


@pytest.fixture
def m(shell: Shell, database_url: str) -> Shell:
    """A migrated database and jobs; no process of the desk runs."""
    shell.set(DATABASE_URL=database_url, M_JOB_MODULES="tests.webapp.api.jobs")
    return shell


def mistake(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("m: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr[:-1].isprintable()
    return done.stderr


def test_a_job_goes_from_run_to_cancel_to_retry(m: Shell) -> None:
    job_id = m.m(
        "job:run", "add", "--args", '{"a": 1}', "--priority", "2", "--tag", "x", check=True
    ).stdout.strip()
    job = json.loads(m.m("job:status", job_id, "--json", check=True).stdout)
    assert (job["status"], job["args"], job["priority"], job["tags"]) == ("queued", {"a": 1}, 2, ["x"])
    assert job["user"].endswith("(command line)")
    assert m.m("job", "cancel", job_id, check=True).stdout == "cancelled\n"
    assert "ended as cancelled" in mistake(m.m("job", "cancel", job_id))
    assert m.m("job", "retry", job_id, check=True).stdout.strip() == job_id
    assert "is queued: it cannot be retried" in mistake(m.m("job", "retry", job_id))
    assert "queued" in m.m("job", "status", job_id, check=True).stdout
    listed = m.m("joblog", "list", "--status", "queued", "--job", "add", check=True).stdout
    assert job_id in listed


def test_job_list_shows_the_modules_of_this_environment(m: Shell) -> None:
    out = m.m("job:list", check=True).stdout
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["add", "desk.probe", "send_email"]
    assert "Adds two numbers." in out


def test_what_does_not_fit_the_signature_is_named(m: Shell) -> None:
    said = mistake(m.m("job", "run", "add", "--args", '{"a": "x", "zz": 1}'))
    assert "a:" in said
    assert "zz:" in said
    assert "nosuch" in mistake(m.m("job", "run", "nosuch"))
    for args, words in (
        ("{", "--args: is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"a":1,"a":2}', "twice"),
    ):
        assert words in mistake(m.m("job", "run", "add", "--args", args))


def test_an_unknown_job_is_named(m: Shell) -> None:
    for verb in ("status", "retry", "cancel"):
        assert NOWHERE in mistake(m.m("job", verb, NOWHERE))
        assert "'xyz'" in mistake(m.m("job", verb, "xyz"))


def test_hostile_text_is_printed_as_escapes(m: Shell) -> None:
    job_id = m.m("job", "run", "send_email", "--args", json.dumps({"to": HOSTILE}), check=True).stdout.strip()
    for command in (("job", "status", job_id), ("joblog", "list"), ("job", "status", job_id, "--json")):
        out = m.m(*command, check=True).stdout
        assert "\x1b" not in out
        assert "\r" not in out
    assert r"\x1b[2J" in mistake(m.m("job", "status", HOSTILE))


def test_a_secret_is_never_printed(m: Shell) -> None:
    args = json.dumps({"to": "a@b.c", "key": "hunter2hunter2"})
    job_id = m.m("job", "run", "send_email", "--args", args, check=True).stdout.strip()
    for command in (("job", "status", job_id), ("job", "status", job_id, "--json")):
        assert "hunter2" not in m.m(*command, check=True).stdout


def test_a_queue_is_paused_and_resumed(m: Shell) -> None:
    m.m("job", "run", "add", "--args", '{"a": 1}', check=True)
    m.m("queue", "pause", "sums", "--reason", "counting", check=True)
    [queue] = [
        q for q in json.loads(m.m("queue", "list", "--json", check=True).stdout) if q["name"] == "sums"
    ]
    assert (queue["queued"], queue["pause_reason"], queue["paused_at"] is None) == (1, "counting", False)
    m.m("queue", "resume", "sums", check=True)
    [queue] = [
        q for q in json.loads(m.m("queue", "list", "--json", check=True).stdout) if q["name"] == "sums"
    ]
    assert queue["paused_at"] is None
    assert "not a queue name" in mistake(m.m("queue", "pause", "$JS.>"))


async def offer() -> None:
    """Offers the jobs of this environment, as a worker that starts would."""
    settings = Settings.from_env(os.environ)
    async with Engine.create(settings) as engine:
        await engine.catalogue.advertise(Registry().discover(settings.job_modules), new_id())


def test_a_job_is_paused_resumed_and_limited(m: Shell) -> None:
    def listed(name: str = "add") -> dict[str, object]:
        jobs = json.loads(m.m("job", "list", "--json", check=True).stdout)
        return next(job for job in jobs if job["name"] == name)

    asyncio.run(offer())
    m.m("job", "pause", "add", "--reason", "sums are wrong", check=True)
    assert (listed()["paused"], listed()["pause_reason"]) == (True, "sums are wrong")
    m.m("job", "resume", "add", check=True)
    assert listed()["paused"] is False
    m.m("job", "limit", "add", "--concurrency", "3", "--rate", "30/m", "--burst", "2", check=True)
    assert [listed()[field] for field in ("concurrency", "rate_limit", "rate_burst")] == [3, 0.5, 2]
    m.m("job", "limit", "add", "--rate", "none", check=True)
    assert [listed()[field] for field in ("concurrency", "rate_limit", "rate_burst")] == [3, None, None]
    m.m("queue", "limit", "sums", "--concurrency", "4", check=True)
    queues = json.loads(m.m("queue", "list", "--json", check=True).stdout)
    assert [queue["concurrency"] for queue in queues if queue["name"] == "sums"] == [4]
    assert "like 5/s, 30/m" in mistake(m.m("job", "limit", "add", "--rate", "fast"), 2)
    assert "at least one" in mistake(m.m("job", "limit", "add"), 2)
    assert "from 1 to 100000" in mistake(m.m("job", "limit", "add", "--concurrency", "0"))
    assert "no job 'nosuch'" in mistake(m.m("job", "pause", "nosuch"))


def test_workers_are_listed_and_asked_to_drain_or_restart(m: Shell) -> None:
    asyncio.run(crew())
    (first, second) = json.loads(m.m("worker", "list", "--json", check=True).stdout)
    assert (first["host"], first["pid"], first["wish"], first["max_jobs"]) == ("box", 7, None, 50)
    assert "box:8" in m.m("worker", "list", check=True).stdout
    assert m.m("worker", "drain", "box:7", check=True).stdout == "asked box:7 to drain\n"
    m.m("worker", "restart", second["worker_id"], check=True)
    wishes = [one["wish"] for one in json.loads(m.m("worker", "list", "--json", check=True).stdout)]
    assert wishes == ["drain", "restart"]
    assert "is leaving already: it was asked to drain" in mistake(m.m("worker", "restart", "box:7"))
    for nobody in ("box:99", "nosuch", "box:99999999999", "box:²", str(new_id())):
        assert f"no worker '{nobody}'" in mistake(m.m("worker", "drain", nobody))
    asyncio.run(crew())
    assert "name one by its id" in mistake(m.m("worker", "drain", "box:8"))


async def crew() -> None:
    """Two workers, as far as their rows tell."""
    now = utc_now()
    row = {"kind": "worker", "host": "box", "beat_at": now, "started_at": now, "max_jobs": 50}
    async with (
        Engine.create(Settings.from_env(os.environ)) as engine,
        engine.database.transaction() as session,
    ):
        await session.execute(sa.insert(Worker), [{"id": new_id(), "pid": pid, **row} for pid in (7, 8)])


def test_dead_letters_are_listed_counted_retried_and_resolved(m: Shell) -> None:
    asyncio.run(offer())
    asyncio.run(failures(3))
    [group] = json.loads(m.m("dead-letter", "list", "--json", check=True).stdout)
    assert (group["job_name"], group["count"], group["error"]) == ("add", 3, "OSError: away")
    assert group["fingerprint"] in m.m("dead-letter", "list", check=True).stdout
    which = group["fingerprint"]
    assert m.m("dead-letter", "retry", which, "--dry-run", check=True).stdout == "3 of 3 jobs\n"
    assert "nosuch" in mistake(m.m("dead-letter", "retry", which, "--args", '{"nosuch": 1}'))
    edited = m.m("dead-letter", "retry", which, "--args", '{"b": 2}', check=True).stdout.strip()
    resolved = m.m("dead-letter", "resolve", which, "--reason", "fixed", check=True).stdout.strip()
    assert len(edited) == len(resolved) == 36
    assert "no group of unresolved failures" in mistake(m.m("dead-letter", "resolve", "f" * 32))


def test_dead_letters_retried_with_no_arguments_to_replace_are_retried_as_they_are(m: Shell) -> None:
    asyncio.run(failures(2))
    assert m.m("dead-letter", "retry", "a" * 32, "--args", "{}", "--dry-run", check=True).stdout == (
        "2 of 2 jobs\n"
    )
    started = m.m("dead-letter", "retry", "a" * 32, "--args", "{}", check=True).stdout.strip()
    operation = asyncio.run(operation_of(UUID(started)))
    assert (operation.action, "args" in operation.filter) == ("retry", False)


async def operation_of(operation_id: UUID) -> Operation:
    async with Engine.create(Settings.from_env(os.environ)) as engine, engine.database.session() as session:
        return await session.get_one(Operation, operation_id)


async def failures(count: int) -> None:
    """Jobs of one cause that failed."""
    now = utc_now()
    row = {
        "job_name": "add", "queue": "sums", "status": "failed", "args": {"a": 1}, "tags": [], "enqueued_at": now,
        "run_at": now, "completed_at": now, "error": "OSError: away", "error_fingerprint": "a" * 32,
    }  # fmt: skip
    async with (
        Engine.create(Settings.from_env(os.environ)) as engine,
        engine.database.transaction() as session,
    ):
        await session.execute(sa.insert(JobLog), [{"id": new_id(), **row} for _ in range(count)])


def test_an_effect_in_doubt_is_shown_and_settled(m: Shell) -> None:
    job_id = m.m("job", "run", "add", "--args", '{"a": 1}', check=True).stdout.strip()
    asyncio.run(doubt(UUID(job_id), "charge"))
    asyncio.run(doubt(UUID(job_id), "mail"))
    assert m.m("job", "settle", job_id, "charge", "--happened", check=True).stdout == "it counts as done\n"
    assert (
        m.m("job", "settle", job_id, "mail", "--did-not-happen", check=True).stdout
        == "the next attempt does it\n"
    )
    effects = json.loads(m.m("job", "effects", job_id, "--json", check=True).stdout)
    assert [(effect["key"], effect["state"]) for effect in effects] == [("charge", "done")]
    assert "no effect in doubt 'mail'" in mistake(m.m("job", "settle", job_id, "mail", "--happened"))
    assert "no job" in mistake(m.m("job", "effects", NOWHERE))
    assert "happened" in mistake(m.m("job", "settle", job_id, "charge"), 2)


async def doubt(job_id: UUID, key: str) -> None:
    """A mark that an execution left behind."""
    async with (
        Engine.create(Settings.from_env(os.environ)) as engine,
        engine.database.transaction() as session,
    ):
        session.add(Effect(job_id=job_id, key=key, state="started", epoch=1, at=utc_now()))


def test_people_and_tokens_are_added(m: Shell) -> None:
    token = m.m("token", "add", "ci", "--role", "operator", check=True).stdout
    assert token.startswith("mdesk_")
    assert token.count("\n") == 1
    assert "/set-up?link=" in m.m("setup-link", check=True).stdout
    assert (
        "refused"
        not in m.m(
            "user",
            "add",
            "ada",
            "--role",
            "admin",
            "--password-stdin",
            stdin="violet-harbour-77\n",
            check=True,
        ).stdout
    )
    assert "people already" in mistake(m.m("setup-link"))
    done = m.m("setup-link", "--if-needed")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "ada" in mistake(m.m("user", "add", "ada", "--password-stdin", stdin="violet-harbour-77\n"))
    assert "viewer, operator, admin" in mistake(m.m("token", "add", "x", "--role", "boss"))


def test_wrong_usage_is_exit_2_and_one_line(shell: Shell) -> None:
    for command in (
        ("frobnicate",), ("job", "run"), ("job", "run", "add", "--priority", "11"), ("job", "list", "--nope"),
        ("joblog", "list", "--status", "nope"), ("job", "run", "add", "--run-at", "tomorrow"), ("worker", "--processes", "x"),
    ):  # fmt: skip
        mistake(shell.m(*command), code=2)


def test_wrong_configuration_is_exit_78_and_names_every_variable(shell: Shell) -> None:
    assert "NATS_URL" in mistake(shell.m("worker"), code=78)
    shell.set(M_JOB_MODULES="no_such_module")
    assert "no_such_module" in mistake(shell.m("job", "list"), code=78)
    shell.set(M_PORT="abc", M_RETENTION_DAYS="0")
    said = mistake(shell.m("job", "list"), code=78)
    assert "M_PORT='abc'" in said
    assert "M_RETENTION_DAYS='0'" in said


def test_a_database_that_is_missing_empty_locked_or_away_is_named(shell: Shell) -> None:
    assert "m db upgrade" in mistake(shell.m("job", "list"))
    path = shell.home / "desk.db"
    assert not path.exists()
    shell.home.mkdir(exist_ok=True)
    path.touch()
    assert "m db upgrade" in mistake(shell.m("job", "list"))
    assert "m db upgrade" in mistake(shell.m("db", "check"))
    shell.m("db", "upgrade", check=True)
    assert shell.m("db", "check").returncode == 0
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "locked" in mistake(shell.m("token", "add", "ci"))
    holder.close()
    shell.set(DATABASE_URL="postgresql://nobody:a-password@127.0.0.1:1/nothing")
    said = mistake(shell.m("job", "list"))
    assert re.search(r"The database \S+@127\.0\.0\.1:1/nothing cannot be used", said)
    assert "a-password" not in said


def test_doctor_says_what_is_fine_and_what_hurts(m: Shell) -> None:
    done = m.m("doctor", "--json")
    findings = {finding["about"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    assert {findings[about]["state"] for about in ("database", "migrations", "clock", "durability")} == {"ok"}
    assert findings["workers"]["state"] == "warn"


def test_doctor_fails_where_migrations_are_missing(shell: Shell) -> None:
    shell.set(DATABASE_URL=f"sqlite:///{shell.home / 'empty.db'}")
    done = shell.m("doctor")
    assert done.returncode == 1
    assert "FAIL  migrations" in done.stdout


def test_doctor_names_a_broker_that_does_not_answer(shell: Shell, sqlite_url: str) -> None:
    shell.set(DATABASE_URL=sqlite_url, NATS_URL="nats://secret-token@127.0.0.1:1")
    done = shell.m("doctor")
    assert done.returncode == 0
    assert "WARN  broker: nats://127.0.0.1:1 does not answer" in done.stdout
    assert "secret-token" not in done.stdout + done.stderr


def test_doctor_says_what_a_redis_would_lose(shell: Shell, sqlite_url: str, valkey_url: str) -> None:
    shell.set(DATABASE_URL=sqlite_url, REDIS_URL=valkey_url)
    done = shell.m("doctor")
    assert done.returncode == 0
    assert f"ok    broker: connected to {valkey_url}" in done.stdout
    assert "WARN  redis persistence: appendonly is off" in done.stdout
    assert "redis memory" not in done.stdout
    command(valkey_url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        assert "WARN  redis memory: maxmemory-policy is allkeys-lru" in shell.m("doctor").stdout
    finally:
        command(valkey_url, "CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_doctor_looks_at_the_cache_beside_nats(shell: Shell, sqlite_url: str, valkey_url: str) -> None:
    shell.set(DATABASE_URL=sqlite_url, NATS_URL="nats://127.0.0.1:1", REDIS_URL=valkey_url)
    assert "ok    cache: Redis answers" in shell.m("doctor").stdout
    shell.set(REDIS_URL="redis://:s3cr3t@127.0.0.1:1")
    done = shell.m("doctor")
    assert "WARN  cache: Redis does not answer" in done.stdout
    assert "s3cr3t" not in done.stdout + done.stderr


def test_a_redis_without_its_client_says_what_to_install(
    shell: Shell, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    shell.set(DATABASE_URL=sqlite_url, REDIS_URL="redis://:s3cr3t@127.0.0.1:1")
    for arguments in (["dev"], ["worker"], ["web"], ["doctor"], ["job", "list"]):
        done = shell.m(*arguments)
        assert done.returncode == 78, (arguments, done)
        assert 'pip install "m-desk[redis]"' in done.stderr
        assert "s3cr3t" not in done.stderr
    shell.set(NATS_URL="nats://127.0.0.1:1")
    assert shell.m("worker").returncode == 78


def command(url: str, *words: str) -> None:
    from redis import Redis

    with Redis.from_url(url) as client:
        client.execute_command(*words)


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    assert desk.m("version", check=True).stdout.strip()[0].isdigit()
    mistake(desk.m("frobnicate"), code=2)
    done = desk.m("job")
    assert (done.returncode, done.stdout, "Usage: m job" in done.stderr) == (2, "", True)
    desk.upgrade()
    assert desk.m("token", "add", "ci", check=True).stdout.count("\n") == 1


# Webhooks


def test_a_webhook_is_made_tested_switched_and_its_deliveries_are_sent_again(m: Shell) -> None:
    m.set(M_WEBHOOK_ALLOW="127.0.0.1")
    made = m.m(
        "webhook", "add", "alerts", "--event", "job.>", "--url", "http://127.0.0.1:8088/x", "--template", "slack", "--off",
        check=True,
    ).stdout.split()  # fmt: skip
    assert made[1].startswith("whsec_")
    [one] = json.loads(m.m("webhook", "list", "--json", check=True).stdout)
    assert (one["webhook_id"], one["state"], one["event"]) == (made[0], "off", "job.>")
    m.m("webhook", "enable", "alerts", check=True)
    assert "on" in m.m("webhook", "list", check=True).stdout
    log_id = m.m("webhook", "test", made[0], check=True).stdout.strip()
    [log] = json.loads(m.m("webhook", "logs", "alerts", "--status", "pending", "--json", check=True).stdout)
    assert (log["log_id"], log["event"], log["webhook"]) == (log_id, "webhook.test", "alerts")
    assert log_id in m.m("webhook", "logs", check=True).stdout
    assert "is pending: it cannot be sent again" in mistake(m.m("webhook", "replay", log_id))
    assert (
        m.m("webhook", "replay", "--webhook", "alerts", "--dry-run", check=True).stdout
        == "1 deliveries, 0 s\n"
    )
    assert (
        ": 1 deliveries"
        in m.m(
            "webhook", "replay", "--status", "pending", "--since", "2020-01-01T00:00:00Z", check=True
        ).stdout
    )
    secret = m.m("webhook", "rotate", "alerts", "--overlap-hours", "1", check=True).stdout.strip()
    assert secret.startswith("whsec_")
    assert secret != made[1]
    m.m("webhook", "disable", "alerts", "--reason", "moving", check=True)
    assert json.loads(m.m("webhook", "list", "--json", check=True).stdout)[0]["disabled_reason"] == "moving"


def test_a_webhook_that_is_not_allowed_is_one_line(m: Shell) -> None:
    said = mistake(
        m.m("webhook", "add", "x", "--event", "a..b", "--url", "http://127.0.0.1/", "--method", "GET")
    )
    for word in ("event:", "url:", "M_WEBHOOK_ALLOW", "method:"):
        assert word in said
    assert "no webhook 'nobody'" in mistake(m.m("webhook", "test", "nobody"))
    assert "no delivery 'x'" in mistake(m.m("webhook", "replay", "x"))
    assert m.m("webhook", "replay").returncode == 2


# Schedules


def test_a_schedule_is_made_paused_resumed_and_run(m: Shell) -> None:
    made = m.m(
        "schedule", "add", "nightly", "--job", "add", "--cron", "30 2 * * *", "--time-zone", "Europe/Warsaw",
        "--args", '{"a": 1}', check=True,
    ).stdout.strip()  # fmt: skip
    m.m("schedule", "pause", "nightly", "--reason", "holidays", check=True)
    [paused] = json.loads(m.m("schedule", "list", "--json", check=True).stdout)
    assert (paused["schedule_id"], paused["pause_reason"], paused["next_run"]) == (made, "holidays", None)
    assert "paused" in m.m("schedule", "list", check=True).stdout
    m.m("schedule", "resume", made, check=True)
    job_id = m.m("schedule", "run", "nightly", check=True).stdout.strip()
    job = json.loads(m.m("job", "status", job_id, "--json", check=True).stdout)
    assert (job["job_name"], job["args"]) == ("add", {"a": 1})
    [resumed] = json.loads(m.m("schedule", "list", "--json", check=True).stdout)
    assert resumed["next_run"] is not None
    assert resumed["last_run"] is not None
    later = json.loads(m.m("schedule", "next", "nightly", "--count", "3", "--json", check=True).stdout)
    assert [one["local"][11:16] for one in later["next"]] == ["02:30"] * 3


def test_an_expression_is_tried_out_and_wrong_ones_are_one_line(m: Shell) -> None:
    tried = m.m(
        "schedule", "next", "--cron", "0 9 * * MON", "--time-zone", "Asia/Tokyo", "--count", "2", check=True
    )
    assert tried.stdout.startswith("At 09:00 on Monday, Asia/Tokyo time\n")
    assert tried.stdout.count("T09:00:00+09:00") == 2
    assert "the minute '61'" in mistake(m.m("schedule", "next", "--cron", "61 * * * *"))
    assert "Mars" in mistake(m.m("schedule", "next", "--cron", "@daily", "--time-zone", "Mars/Base"))
    assert "nothing" in mistake(m.m("schedule", "run", "nothing"))
    mistake(m.m("schedule", "next"), 2)
    wrong = mistake(m.m("schedule", "add", "x", "--job", "nobody", "--cron", "@daily", "--missed", "never"))
    assert "function" in wrong
    assert "missed" in wrong


# Events


def test_an_event_is_published_and_what_may_not_be_said_is_refused(m: Shell) -> None:
    told = m.m(
        "event", "publish", "invoice.paid", "--data", '{"n": 1}', "--doctype", "Invoice", "--doc-id", "7"
    )
    assert (told.returncode, len(told.stdout.strip())) == (0, 36)
    for arguments, said in (
        (("job.failed",), "the engine's own"),
        (("Invoice",), "must be words"),
        (("invoice.paid", "--data", "[1]"), "data: must be a JSON object"),
        (("invoice.paid", "--data", "{"), "data: is not JSON"),
    ):
        refused = m.m("event", "publish", *arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
