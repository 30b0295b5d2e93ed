"""Catalogue, queues, workers and tokens over the API."""

from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.webapp.api.conftest import NOWHERE, Client
from worker.db.base import utc_now
from worker.process.models import Worker


async def add_worker(client: Client, **columns: object) -> None:
    row = {
        "id": uuid4(), "kind": "worker", "host": "box", "pid": 7, "queues": ["mail"], "jobs": ["send_email"], "slots": 4,
        "busy": 1, "beat_at": utc_now(), "started_at": utc_now(),
    } | columns  # fmt: skip
    async with client.engine.database.transaction() as session:
        await session.execute(sa.insert(Worker).values(**row))


async def test_the_catalogue_names_what_can_run_and_how(viewer: Client) -> None:
    await add_worker(viewer)
    _, page = await viewer.call("GET", "/job-catalogue")
    assert [offer["name"] for offer in page["items"]] == ["add", "send_email"]
    status, offer = await viewer.call("GET", "/job-catalogue/send_email")
    assert status == 200
    assert (offer["queue"], offer["max_retries"], offer["timeout_s"], offer["workers"]) == (
        "mail",
        2,
        30.0,
        1,
    )
    assert offer["doc"].startswith("Sends one message")
    assert offer["args_schema"]["required"] == ["to"]
    assert (await viewer.call("GET", "/job-catalogue/nosuch"))[0] == 404


async def test_a_job_is_paused_resumed_and_limited(operator: Client) -> None:
    status, offer = await operator.call("POST", "/job-catalogue/add/pause", {"reason": "broken"})
    assert (status, offer["pause_reason"], offer["paused_at"] is None) == (200, "broken", False)
    assert offer["paused_by"] == "a-operator"
    status, offer = await operator.call("POST", "/job-catalogue/add/resume")
    assert (status, offer["pause_reason"], offer["paused_at"]) == (200, None, None)
    status, offer = await operator.call("PATCH", "/job-catalogue/add", {"concurrency": 3})
    assert (status, offer["concurrency"], offer["rate_limit"]) == (200, 3, None)
    status, offer = await operator.call("PATCH", "/job-catalogue/add", {"rate_limit": 0.5, "rate_burst": 2})
    assert (status, offer["concurrency"], offer["rate_limit"], offer["rate_burst"]) == (200, 3, 0.5, 2)
    status, offer = await operator.call(
        "PATCH", "/job-catalogue/add", {"concurrency": None, "rate_limit": None}
    )
    assert (status, offer["concurrency"], offer["rate_limit"], offer["rate_burst"]) == (200, None, None, None)
    wrong = {"concurrency": 0, "rate_limit": 0, "rate_burst": "many", "rate": 5}
    status, answer = await operator.call("PATCH", "/job-catalogue/add", wrong)
    assert (status, operator.problems(answer).keys()) == (422, set(wrong))
    for verb, body in (("pause", None), ("resume", None)):
        assert (await operator.call("POST", f"/job-catalogue/nosuch/{verb}", body))[0] == 404
    assert (await operator.call("PATCH", "/job-catalogue/add", {"concurrency": 0}))[0] == 422


async def test_queues_say_how_full_they_are(operator: Client) -> None:
    await add_worker(operator)
    await operator.run("send_email", {"to": "a@b.c"})
    await operator.run("send_email", {"to": "a@b.c"}, run_at="2099-01-01T00:00:00Z")
    _, page = await operator.call("GET", "/queues")
    queues = {queue["name"]: queue for queue in page["items"]}
    assert (queues["mail"]["queued"], queues["mail"]["scheduled"], queues["mail"]["workers"]) == (1, 1, 1)
    assert queues["mail"]["oldest_age_s"] >= 0
    assert (queues["sums"]["queued"], queues["sums"]["oldest_age_s"], queues["sums"]["workers"]) == (
        0,
        None,
        0,
    )


async def test_a_queue_is_paused_resumed_and_limited(operator: Client) -> None:
    status, queue = await operator.call("POST", "/queues/mail/pause", {"reason": "mail server down"})
    assert (status, queue["paused"], queue["pause_reason"], queue["paused_by"]) == (
        200, True, "mail server down", "a-operator",
    )  # fmt: skip
    status, queue = await operator.call("POST", "/queues/mail/resume")
    assert (status, queue["paused"], queue["pause_reason"]) == (200, False, None)
    status, queue = await operator.call("PATCH", "/queues/mail", {"concurrency": 8})
    assert (status, queue["concurrency"]) == (200, 8)
    status, queue = await operator.call("PATCH", "/queues/mail", {"concurrency": None})
    assert (status, queue["concurrency"]) == (200, None)


@pytest.mark.parametrize("name", ["nosuch", "%24JS.%3E", "*", "mail%0A", "%2e%2e", "q" * 300])
async def test_a_queue_that_is_not_there_is_404(operator: Client, name: str) -> None:
    for method, path in (("POST", "/pause"), ("POST", "/resume"), ("PATCH", "")):
        body = {"concurrency": 1} if method == "PATCH" else None
        assert (await operator.call(method, f"/queues/{name}{path}", body))[0] == 404


async def test_a_reason_that_is_too_long_is_refused(operator: Client) -> None:
    status, answer = await operator.call("POST", "/queues/mail/pause", {"reason": "x" * 501, "why": 1})
    assert (status, operator.problems(answer).keys()) == (422, {"reason", "why"})


async def test_workers_that_live_are_listed_and_the_ended_on_request(viewer: Client) -> None:
    await add_worker(viewer, host="alive")
    await add_worker(viewer, host="gone", ended_at=utc_now(), end_reason="killed")
    _, page = await viewer.call("GET", "/workers")
    assert [(worker["host"], worker["alive"]) for worker in page["items"]] == [("alive", True)]
    _, page = await viewer.call("GET", "/workers?ended=true")
    assert {worker["host"]: worker["end_reason"] for worker in page["items"]} == {
        "alive": None,
        "gone": "killed",
    }
    assert (await viewer.call("GET", "/workers?ended=maybe"))[0] == 422


async def test_a_token_is_shown_once_works_and_is_revoked(admin: Client) -> None:
    status, made = await admin.call("POST", "/tokens", {"name": "ci", "role": "viewer"})
    assert (status, made["role"], made["owner"]) == (201, "viewer", "ci")
    answer = await admin.raw("GET", "/tokens")
    assert made["token"] not in answer.text
    assert {token["name"] for token in answer.json()["items"]} == {"a-admin", "ci"}
    theirs = {"headers": {"Authorization": f"Bearer {made['token']}"}}
    assert (await admin.call("GET", "/jobs", **theirs))[0] == 200
    assert await admin.call("DELETE", f"/tokens/{made['token_id']}") == (204, None)
    assert (await admin.call("GET", "/jobs", **theirs))[0] == 401
    assert (await admin.call("DELETE", f"/tokens/{NOWHERE}"))[0] == 404


async def test_a_token_request_names_every_mistake(admin: Client) -> None:
    status, answer = await admin.call(
        "POST", "/tokens", {"name": "", "role": "boss", "expires_at": "x", "id": 1}
    )
    assert (status, admin.problems(answer).keys()) == (422, {"name", "role", "expires_at", "id"})
    status, answer = await admin.call(
        "POST", "/tokens", {"name": "old", "expires_at": "2020-01-01T00:00:00Z"}
    )
    assert (status, admin.problems(answer).keys()) == (422, {"expires_at"})


async def test_only_admins_see_and_make_tokens(operator: Client, viewer: Client) -> None:
    for client in (operator, viewer):
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"name": "x"}),
            ("DELETE", f"/{NOWHERE}", None),
        ):
            assert (await client.call(method, f"/tokens{path}", body))[0] == 403


async def test_viewers_control_nothing(viewer: Client) -> None:
    for path in (
        "/queues/mail/pause",
        "/queues/mail/resume",
        "/job-catalogue/add/pause",
        "/job-catalogue/add/resume",
    ):
        assert (await viewer.call("POST", path))[0] == 403
    for path in ("/queues/mail", "/job-catalogue/add"):
        assert (await viewer.call("PATCH", path, {"concurrency": 1}))[0] == 403


async def test_a_worker_is_asked_to_drain_or_to_restart_once(operator: Client) -> None:
    ids = [uuid4() for _ in range(5)]
    await add_worker(operator, id=ids[0], max_memory_mb=512, max_jobs=9)
    await add_worker(operator, id=ids[1], kind="clerk", pid=8)
    await add_worker(operator, id=ids[2], pid=9, ended_at=utc_now())
    for _ in range(2):
        status, worker = await operator.call("POST", f"/workers/{ids[0]}/drain")
        assert (status, worker["wish"], worker["max_memory_mb"], worker["max_jobs"]) == (200, "drain", 512, 9)
    status, answer = await operator.call("POST", f"/workers/{ids[0]}/restart")
    assert (status, "box:7 is leaving already: it was asked to drain" in answer["detail"]) == (409, True)
    status, answer = await operator.call("POST", f"/workers/{ids[1]}/restart")
    assert (status, operator.problems(answer)) == (
        422,
        {"worker_id": "box:8 is a clerk; only workers restart"},
    )
    await add_worker(operator, id=ids[3], kind="inline", pid=10)
    _, answer = await operator.call("POST", f"/workers/{ids[3]}/drain")
    assert operator.problems(answer) == {"worker_id": "box:10 is part of the web process; only workers drain"}
    await add_worker(operator, id=ids[4], pid=11, stopping_at=utc_now())
    status, answer = await operator.call("POST", f"/workers/{ids[4]}/drain")
    assert (status, "box:11 is leaving already: it takes nothing new" in answer["detail"]) == (409, True)
    for gone in (ids[2], uuid4()):
        assert (await operator.call("POST", f"/workers/{gone}/drain"))[0] == 404
