"""A whole desk of real processes with only REDIS_URL: two `m web`, one `m worker`."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.desk import Desk
from tests.servers.valkey import ValkeyServer

pytestmark = pytest.mark.timeout(180)


def test_web_processes_and_a_worker_need_nothing_but_redis(
    desk: Desk, own_valkey_server: ValkeyServer, tmp_path: Path
):
    desk.jobs = "tests.worker.process.sample_jobs"
    desk.environ["REDIS_URL"] = own_valkey_server.url
    desk.upgrade()
    desk.worker()
    here, there = desk.web(), desk.web()
    desk.wait_for(lambda: desk.call("GET", "/api/v1/job-catalogue")[1]["items"], here)

    job_id = desk.run("add", {"a": 2, "b": 3})
    assert desk.until(job_id)["result"] == 5
    assert desk.call("GET", f"/api/v1/jobs/{job_id}", base=there.base)[1]["status"] == "success"

    runs = desk.run("mark", {"path": str(tmp_path / "witness"), "seconds": 60})
    desk.until(runs, "running")
    assert desk.call("POST", f"/api/v1/jobs/{runs}/cancel", base=there.base)[0] == 200
    assert desk.until(runs)["status"] == "cancelled"

    metrics = text(f"{here.base}/metrics", desk.token)
    assert 'm_broker_connected{backend="redis"} 1.0' in metrics
    assert 'm_broker_pending{lane="normal",queue="default"} 0.0' in metrics
    findings = {one["about"]: one for one in json.loads(desk.m("doctor", "--json", check=True).stdout)}
    assert own_valkey_server.url in findings["broker"]["text"]
    assert findings["workers"]["state"] == "ok"

    own_valkey_server.kill()
    assert desk.until(desk.run("add", {"a": 4}))["status"] == "success"
    own_valkey_server.start()


def text(url: str, token: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())
