"""compose.yaml says what the real Docker Compose accepts, its services run from the built wheel, its NATS users may do their part."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy, StreamConfig

from tests.desk import Desk, Process
from tests.servers import free_port
from tests.servers.postgres import PostgresServer
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
            assert await violated(refusals), forbidden


async def test_the_worker_cannot_remove_a_stream(production_nats: Path) -> None:
    async with connected(production_nats / "nats_url_worker") as (worker, refusals):
        await worker.jetstream().add_stream(STREAM)
        await worker.publish("$JS.API.STREAM.DELETE.framework_m_jobs", b"", reply="_INBOX.test")
        await worker.flush()
        assert await violated(refusals)


async def violated(refusals: list[str]) -> bool:
    """Whether the server names a violation; its word may come after the answer to a flush."""
    for _ in range(200):
        if any("permissions violation" in refusal.lower() for refusal in refusals):
            return True
        await asyncio.sleep(0.05)
    return False


BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
MAIN = "from worker.cli import main; main()"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


@dataclass
class Composed(Desk):
    """The services of compose.yaml as processes of this machine, with nothing of the checkout on their path."""

    services: dict[str, Any] = field(default_factory=dict)
    site: Path = Path()
    secrets: Path = Path()
    app: Path = Path()

    def service(self, name: str) -> list[Process]:
        """As many as compose starts, each with the service's own command and environment."""
        of = self.services[name]
        found = []
        for _ in range(of["deploy"]["replicas"]):
            port = free_port() if name == "web" else None
            found.append(self.start(*of["command"], port=port, environ=self.given(name, port)))
        return found

    def given(self, name: str, port: int | None = None) -> dict[str, str]:
        given = {key: str(value) for key, value in self.services[name]["environment"].items()}
        if port:
            given |= {"M_PORT": str(port), "M_HOST": "127.0.0.1"}
        return {key: value.replace("/run/secrets", str(self.secrets)) for key, value in given.items()}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", MAIN, *arguments]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        of_a_desk = ("M_", "DATABASE_URL", "NATS_URL", "REDIS_URL", "PYTHON")
        base = {key: value for key, value in os.environ.items() if not key.startswith(of_a_desk)}
        path = os.pathsep.join([str(self.site), str(self.app)])
        return {
            **base,
            "PYTHONPATH": path,
            "PYTHONSAFEPATH": "1",
            "M_HOME": str(self.home),
            **(more or self.given("migrate")),
        }


def test_every_service_runs_from_the_wheel_by_its_own_command(
    copy: Path, production_nats: Path, postgres_server: PostgresServer, site: Path, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    shutil.copytree(ROOT / "e2e" / "acme", app)
    (production_nats / "database_url").write_text(postgres_server.database())
    with Composed(
        tmp_path / "home", services=services(copy), site=site, secrets=production_nats, app=app
    ) as desk:
        where = "import webapp.paths, worker; print(worker.__file__, webapp.paths.folder('static'))"
        found = subprocess.run(
            [sys.executable, "-c", where], cwd=ROOT, env=desk.environment(), capture_output=True, text=True
        )
        assert [path.startswith(str(site)) for path in found.stdout.split()] == [True, True]
        desk.m(*desk.services["migrate"]["command"], check=True)
        webs, workers = desk.service("web"), desk.service("worker")
        assert (len(webs), len(workers)) == (2, 2)
        for web in webs:
            desk.wait_for(lambda web=web: desk.ready(web), web)
            assert page_and_style(web.base)
        for worker in workers:
            desk.wait_for(lambda worker=worker: "A child has started" in worker.output(), worker)
        desk.wait_for(lambda: len(alive(desk)) == 2, workers[0])
        jobs = [desk.run("greet", {"name": str(number)}) for number in range(20)]
        ends = [desk.until(job, timeout_s=60) for job in jobs]
        assert {end["status"] for end in ends} == {"success"}
        assert desk.call("GET", f"/api/v1/jobs/{jobs[0]}", base=webs[1].base)[1]["result"] == "hello 0"
        program, *check = desk.services["worker"]["healthcheck"]["test"][1:]
        assert program == "m"
        assert desk.m(*check).returncode == 0
        assert [worker.stop() for worker in workers] == [0, 0]
        for web in webs:  # uvicorn ends by the signal itself once its requests have been answered
            assert web.stop() in (0, -signal.SIGTERM)


def services(folder: Path) -> dict[str, Any]:
    """The services as Docker Compose itself reads them."""
    done = subprocess.run(
        [COMPOSE, "-f", folder / "compose.yaml", "config", "--format", "json"],
        env={**os.environ, "M_JOB_MODULES": "shop_jobs"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def page_and_style(base: str) -> bool:
    """Whether the sign-in page and its style come, which only the files in the wheel can give."""
    with urllib.request.urlopen(f"{base}/sign-in", timeout=30) as answer:
        page = answer.read().decode()
    (style, *_) = re.findall(r'href="(/static/[^"]+\.css)"', page)
    with urllib.request.urlopen(base + style, timeout=30) as answer:
        return bool(answer.status == 200 and answer.read())


def alive(desk: Desk) -> list[Any]:
    status, answer = desk.call("GET", "/api/v1/workers")
    assert status == 200, answer
    return [one for one in answer["items"] if one["kind"] == "worker"]


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
