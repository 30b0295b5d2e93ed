"""compose.yaml says what the real Docker Compose accepts, and its NATS users may do their part and no more."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StreamConfig

from tests.servers import free_port
from worker.process import nats_server, platform

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = Path(sys.executable).with_name("docker-compose.exe" if platform.WINDOWS else "docker-compose")
STREAM = StreamConfig(
    name="framework_m_jobs", subjects=["framework.jobs.>"], retention=RetentionPolicy.WORK_QUEUE
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with compose.yaml and its secrets as an operator has it."""
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([sys.executable, tmp_path / "deploy" / "make_secrets.py"], check=True)
    return tmp_path


def test_compose_accepts_it(copy: Path) -> None:
    checked = compose_config(copy)
    assert checked.returncode == 0, checked.stderr


def test_compose_accepts_the_documented_override_for_redis(copy: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    (override,) = re.findall(r"```yaml\n(# compose\.redis\.yaml.*?)```", page, re.DOTALL)
    (copy / "compose.redis.yaml").write_text(override)
    files = ["-f", copy / "compose.yaml", "-f", copy / "compose.redis.yaml"]
    done = subprocess.run([COMPOSE, *files, "config"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("REDIS_URL: redis://redis:6379/0")) == (0, 2), done.stderr
    assert "nats:2" not in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("service_completed_successfully", "service_finished"),
        ("    image: nats:2.15-alpine", "    imgae: nats:2.15-alpine"),
        ("      nats: { condition: service_healthy }", "      broker: { condition: service_healthy }"),
        ("  web-home:\n  worker-home:", "  worker-home:"),
        ("secrets: [database_url, secret_key]", "secrets: [database_uri, secret_key]"),
    ],
)
def test_compose_refuses_a_planted_fault(copy: Path, right: str, wrong: str) -> None:
    file = copy / "compose.yaml"
    text = file.read_text()
    assert right in text
    file.write_text(text.replace(right, wrong))
    assert compose_config(copy).returncode != 0


def test_secrets_are_made_once(copy: Path) -> None:
    before = {path.name: path.read_text() for path in (copy / "deploy" / "secrets").iterdir()}
    subprocess.run([sys.executable, copy / "deploy" / "make_secrets.py"], check=True)
    assert {path.name: path.read_text() for path in (copy / "deploy" / "secrets").iterdir()} == before
    assert before["postgres_password"].strip() in before["database_url"]


@pytest.fixture
def production_nats(copy: Path) -> Iterator[Path]:
    """nats-server with deploy/nats.conf as compose starts it, on another port."""
    shutil.copy(copy / "deploy" / "secrets" / "nats_passwords.conf", copy / "deploy" / "passwords.conf")
    port = free_port()
    config = (copy / "deploy" / "nats.conf").read_text()
    for theirs, ours in {
        "listen: 0.0.0.0:4222": f"listen: 127.0.0.1:{port}",
        "http: 127.0.0.1:8222": "",
        "store_dir: /data": f"store_dir: '{copy / 'data'}'",
    }.items():
        assert theirs in config
        config = config.replace(theirs, ours)
    (copy / "deploy" / "nats.conf").write_text(config)
    command = [nats_server.find(), "-c", copy / "deploy" / "nats.conf"]
    with (copy / "nats.log").open("wb") as log:
        process = platform.spawn([str(word) for word in command], output=log)
    for name in ("nats_url_web", "nats_url_worker"):
        file = copy / "deploy" / "secrets" / name
        file.write_text(file.read_text().replace("nats:4222", f"127.0.0.1:{port}"))
    yield copy / "deploy" / "secrets"
    platform.kill_tree(process)


async def test_the_web_process_rings_and_the_worker_takes(production_nats: Path) -> None:
    async with connected(production_nats / "nats_url_web") as (web, _):
        await web.jetstream().add_stream(STREAM)
        await web.jetstream().publish("framework.jobs.mail.p4", b"id")
    async with connected(production_nats / "nats_url_worker") as (worker, refusals):
        lane = await worker.jetstream().pull_subscribe(
            "framework.jobs.mail.p4", durable="mail_p4", stream="framework_m_jobs"
        )
        (message,) = await lane.fetch(1, timeout=5)
        await message.ack_sync()
        assert (await worker.jetstream().stream_info("framework_m_jobs")).state.messages == 0
        assert not refusals


async def test_the_web_process_cannot_take_or_remove_jobs(production_nats: Path) -> None:
    async with connected(production_nats / "nats_url_web") as (web, refusals):
        await web.jetstream().add_stream(STREAM)
        for forbidden in (
            "STREAM.PURGE.framework_m_jobs",
            "STREAM.DELETE.framework_m_jobs",
            "CONSUMER.MSG.NEXT.framework_m_jobs.mail_p4",
        ):
            refusals.clear()
            await web.publish(f"$JS.API.{forbidden}", b"", reply="_INBOX.test")
            await web.flush()
            assert any("permissions violation" in refusal.lower() for refusal in refusals), forbidden


async def test_the_worker_cannot_remove_a_stream(production_nats: Path) -> None:
    async with connected(production_nats / "nats_url_worker") as (worker, refusals):
        await worker.jetstream().add_stream(STREAM)
        await worker.publish("$JS.API.STREAM.DELETE.framework_m_jobs", b"", reply="_INBOX.test")
        await worker.flush()
        assert any("permissions violation" in refusal.lower() for refusal in refusals)


def compose_config(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMPOSE, "-f", folder / "compose.yaml", "config", "-q"], capture_output=True, text=True
    )


@asynccontextmanager
async def connected(url: Path) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection as one user, and what the server refused it."""
    refusals: list[str] = []

    async def refused(error: Exception) -> None:
        refusals.append(str(error))

    client = await nats.connect(
        url.read_text().strip(),
        error_cb=refused,
        connect_timeout=5,
        reconnect_time_wait=0.1,
        max_reconnect_attempts=50,
    )
    try:
        yield client, refusals
    finally:
        await client.close()
