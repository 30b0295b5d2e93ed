"""POST /api/v1/jobs accepts a job, or names everything that is wrong with the request."""

import asyncio
import json
from datetime import datetime

from tests.webapp.api.conftest import Client
from worker.jobs.secret import MASK

FIELDS = {
    "job_id", "job_name", "queue", "priority", "status", "reason", "args", "result", "error", "enqueued_at", "run_at",
    "started_at", "completed_at", "duration_seconds", "attempt", "max_retries", "progress", "progress_note", "worker",
    "user", "scheduled_job", "rerun_of", "tags", "note", "attempts",
}  # fmt: skip


async def test_answers_202_with_the_whole_job(operator: Client) -> None:
    job = await operator.run("send_email", {"to": "ada@example.com"}, priority=2, tags=["welcome"])
    assert job.keys() >= FIELDS
    assert job["status"] == "queued"
    assert (job["queue"], job["max_retries"], job["priority"]) == ("mail", 2, 2)
    assert (job["args"], job["tags"], job["user"]) == ({"to": "ada@example.com"}, ["welcome"], "a-operator")
    assert await operator.call("GET", f"/jobs/{job['job_id']}") == (200, job)


async def test_times_are_utc_with_their_fraction(operator: Client) -> None:
    job = await operator.run(run_at="2099-01-01T01:00:00+01:00")
    assert job["run_at"] == "2099-01-01T00:00:00.000000Z"
    assert job["status"] == "scheduled"
    assert datetime.fromisoformat(job["enqueued_at"]).utcoffset().total_seconds() == 0


async def test_names_every_wrong_field_at_once(operator: Client) -> None:  # case 41
    body = {
        "args": [1], "queue": "$JS.>", "priority": 10, "run_at": "tomorrow", "unique_key": "", "max_retries": -1,
        "timeout_s": 0, "tags": "x", "status": "success", "epoch": 99,
    }  # fmt: skip
    status, answer = await operator.call("POST", "/jobs", body)
    assert status == 422
    assert operator.problems(answer).keys() == body.keys() | {"job_name"}
    assert (
        "10 is not allowed; it must be a whole number from 0 (first) to 9 (last)"
        in operator.problems(answer)["priority"]
    )


async def test_names_every_argument_that_does_not_fit(operator: Client) -> None:
    for args, fields in (({"a": "x", "zz": 2}, {"a", "zz"}), ({}, {"a"}), ({"a": None}, {"a"})):
        status, answer = await operator.call("POST", "/jobs", {"job_name": "add", "args": args})
        assert status == 422
        assert {field.rpartition(".")[2] for field in operator.problems(answer)} == fields


async def test_a_job_that_nobody_offers_is_not_found(operator: Client) -> None:  # case 38
    for name in ("os.system", "os:system", "builtins.eval", "_private", "../add", "ADD", "add\n"):
        status, answer = await operator.call("POST", "/jobs", {"job_name": name, "args": {}})
        assert (name, status, answer["status"]) == (name, 404, 404)


async def test_a_queue_name_that_could_mean_something_to_the_broker_is_refused(
    operator: Client,
) -> None:  # case 43
    names = (
        ">",
        "*",
        "a.b",
        "$JS.API.STREAM.DELETE.JOBS",
        "..",
        "",
        "q" * 300,
        "mail\n",
        "ma\u2024il",
        "Mail",
    )
    for queue in names:
        status, answer = await operator.call(
            "POST", "/jobs", {"job_name": "add", "args": {"a": 1}, "queue": queue}
        )
        assert (queue, status, list(operator.problems(answer))) == (queue, 422, ["queue"])


UNKEEPABLE = [
    '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": ' + "9" * 400 + "}", r'{"a": "\ud800"}', r'{"a": "\u0000"}', '{"a": 1e999}',
    '{"a": ' + "[" * 40 + "]" * 40 + "}", '{"a": ' + '{"a":' * 5000 + "1" + "}" * 5000 + "}",
    '{"a": "' + "x" * 300_000 + '"}', '{"a": "' + "x" * 1_100_000 + '"}', "{", "",
]  # fmt: skip


async def test_what_cannot_be_kept_exactly_is_refused(operator: Client) -> None:  # case 40
    for args in UNKEEPABLE:
        body = f'{{"job_name": "add", "args": {args}}}'
        answer = await operator.raw(
            "POST", "/jobs", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (413, 422), args[:40]
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert await operator.call("GET", "/jobs") == (
        200,
        {"items": [], "next_cursor": None, "searched_back_to": None},
    )


async def test_a_body_that_is_no_object_is_refused(operator: Client) -> None:
    for content in (b"[]", b"1", b"null", b'"x"', b"", b"\xff\xfe{}"):
        answer = await operator.raw(
            "POST", "/jobs", content=content, headers={"Content-Type": "application/json"}
        )
        assert (content, answer.status_code) == (content, 422)


async def test_json_under_another_name_is_refused(operator: Client) -> None:
    body = json.dumps({"job_name": "add", "args": {"a": 1}})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = await operator.raw("POST", "/jobs", content=body, headers={"Content-Type": kind})
        assert (kind, answer.status_code) == (kind, 415)


async def test_a_secret_argument_is_never_shown(operator: Client) -> None:
    job = await operator.run("send_email", {"to": "a@b.c", "key": "hunter2hunter2"})
    answer = await operator.raw("GET", f"/jobs/{job['job_id']}")
    assert answer.json()["args"] == {"to": "a@b.c", "key": MASK}
    assert "hunter2" not in (await operator.raw("GET", "/jobs")).text


async def test_the_live_holder_of_a_unique_key_is_answered_as_duplicate(operator: Client) -> None:
    first = await operator.run(unique_key="report-7")
    status, second = await operator.call(
        "POST", "/jobs", {"job_name": "add", "args": {"a": 2}, "unique_key": "report-7"}
    )
    assert (status, second["job_id"], second["duplicate"]) == (200, first["job_id"], True)
    assert "duplicate" not in first


async def test_a_repeated_idempotency_key_answers_the_first_ones_job(operator: Client) -> None:  # case 64
    headers = {"Idempotency-Key": "order-1"}
    body = {"job_name": "add", "args": {"a": 1}}
    status, first = await operator.call("POST", "/jobs", body, headers=headers)
    assert status == 202
    status, again = await operator.call("POST", "/jobs", body, headers=headers)
    assert (status, again["job_id"]) == (200, first["job_id"])
    status, answer = await operator.call("POST", "/jobs", body | {"priority": 1}, headers=headers)
    assert status == 422
    assert "order-1" in answer["detail"]


async def test_a_hundred_parallel_requests_with_one_idempotency_key_make_one_job(
    operator: Client,
) -> None:  # case 64
    headers = {"Idempotency-Key": "order-2"}
    wish = operator.call("POST", "/jobs", {"job_name": "add", "args": {"a": 1}}, headers=headers)
    others = [
        operator.call("POST", "/jobs", {"job_name": "add", "args": {"a": 1}}, headers=headers)
        for _ in range(99)
    ]
    answers = await asyncio.gather(wish, *others)
    assert sorted(status for status, _ in answers) == [200] * 99 + [202]
    assert len({job["job_id"] for _, job in answers}) == 1
    _, page = await operator.call("GET", "/jobs")
    assert len(page["items"]) == 1


async def test_a_refused_request_does_not_use_its_idempotency_key_up(operator: Client) -> None:
    headers = {"Idempotency-Key": "order-3"}
    assert (await operator.call("POST", "/jobs", {"job_name": "add", "args": {}}, headers=headers))[0] == 422
    assert (await operator.call("POST", "/jobs", {"job_name": "add", "args": {"a": 1}}, headers=headers))[
        0
    ] == 202


async def test_two_people_may_use_the_same_idempotency_key(operator: Client, admin: Client) -> None:
    headers = {"Idempotency-Key": "order-4"}
    body = {"job_name": "add", "args": {"a": 1}}
    assert (await operator.call("POST", "/jobs", body, headers=headers))[0] == 202
    assert (await admin.call("POST", "/jobs", body, headers=headers))[0] == 202


async def test_an_idempotency_key_that_cannot_be_kept_is_refused(operator: Client) -> None:
    for key in ("", "k" * 256, "żółw".encode()):
        headers = {"Idempotency-Key": key}
        status, answer = await operator.call(
            "POST", "/jobs", {"job_name": "add", "args": {"a": 1}}, headers=headers
        )
        assert (key, status, list(operator.problems(answer))) == (key, 422, ["Idempotency-Key"])


async def test_a_viewer_runs_nothing(viewer: Client) -> None:
    assert (await viewer.call("POST", "/jobs", {"job_name": "add", "args": {"a": 1}}))[0] == 403
    assert (await viewer.call("GET", "/jobs"))[1]["items"] == []
