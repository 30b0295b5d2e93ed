"""Dead letters over the API."""

from __future__ import annotations

from typing import Any

from tests.webapp.api.conftest import Client
from worker.joblogs import bulk

GROUP = "a" * 32


async def failed(
    client: Client, group: str = GROUP, name: str = "send_email", args: dict[str, Any] | None = None
) -> str:
    job = await client.run(name, {"to": "a@b.c"} if args is None else args)
    await client.set(job["job_id"], status="running", epoch=1)
    await client.set(job["job_id"], status="failed", error="OSError: away", error_fingerprint=group)
    return str(job["job_id"])


async def carry_out(client: Client, answer: Any) -> Any:
    while await bulk.run_pending(client.engine.database):
        continue
    return (await client.call("GET", f"/jobs/bulk/{answer['operation_id']}"))[1]


async def test_groups_are_listed_page_by_page_and_read_alone(operator: Client) -> None:
    for group in ("a" * 32, "b" * 32, "b" * 32):
        last = await failed(operator, group)
    _, page = await operator.call("GET", "/dead-letters?limit=1")
    assert [(item["fingerprint"], item["count"], item["last_job_id"]) for item in page["items"]] == [
        ("b" * 32, 2, last)
    ]
    cursor = page["next_cursor"]
    _, page = await operator.call("GET", "/dead-letters", params={"limit": 1, "before": cursor})
    assert [item["fingerprint"] for item in page["items"]] == ["a" * 32]
    assert page["next_cursor"] is None
    status, one = await operator.call("GET", f"/dead-letters/{'b' * 32}")
    assert (status, one["job_name"], one["queue"], one["error"]) == (
        200,
        "send_email",
        "mail",
        "OSError: away",
    )
    for wrong in ("c" * 32, "x", "%27%20OR%201"):
        assert (await operator.call("GET", f"/dead-letters/{wrong}"))[0] == 404
    assert (await operator.call("GET", "/dead-letters?limit=0&before=soon"))[0] == 422


async def test_a_group_is_counted_then_retried(operator: Client) -> None:
    ids = [await failed(operator) for _ in range(3)]
    status, seen = await operator.call("POST", f"/dead-letters/{GROUP}/retry", {"dry_run": True})
    assert (status, seen["action"], seen["will"]) == (200, "retry", 3)
    status, answer = await operator.call("POST", f"/dead-letters/{GROUP}/retry")
    assert status == 202
    done = await carry_out(operator, answer)
    assert (done["status"], done["done"], done["refused"]) == ("done", 3, 0)
    for job_id in ids:
        assert (await operator.call("GET", f"/jobs/{job_id}"))[1]["status"] == "queued"
    assert (await operator.call("POST", f"/dead-letters/{GROUP}/retry"))[0] == 404


async def test_a_group_is_retried_edited(operator: Client) -> None:
    await failed(operator, name="add", args={"a": 1, "b": 5})
    await failed(operator, name="add", args={"a": 2, "b": 6})
    for args, field in (({"b": "many"}, "b"), ({"nosuch": 1}, "nosuch")):
        for dry_run in (True, False):
            wish = {"args": args, "dry_run": dry_run}
            status, answer = await operator.call("POST", f"/dead-letters/{GROUP}/retry", wish)
            assert (status, field in str(operator.problems(answer))) == (422, True)
    status, answer = await operator.call("POST", f"/dead-letters/{GROUP}/retry", {"args": {"b": 7}})
    assert (status, answer["action"], answer["filter"]["args"]) == (202, "rerun", {"b": 7})
    assert (await carry_out(operator, answer))["done"] == 2
    _, page = await operator.call("GET", "/jobs?status=queued")
    assert sorted((job["args"]["a"], job["args"]["b"]) for job in page["items"]) == [(1, 7), (2, 7)]


async def test_a_secret_is_not_kept_by_an_operation(operator: Client) -> None:
    await failed(operator)
    status, answer = await operator.call("POST", f"/dead-letters/{GROUP}/retry", {"args": {"key": "hunter2"}})
    assert (status, operator.problems(answer).keys()) == (422, {"key"})
    assert "hunter2" not in str(answer)


async def test_a_group_is_resolved_with_a_reason(operator: Client) -> None:
    await failed(operator)
    status, answer = await operator.call("POST", f"/dead-letters/{GROUP}/resolve", {"reason": "fixed"})
    assert (status, answer["filter"]["reason"]) == (202, "fixed")
    assert (await carry_out(operator, answer))["done"] == 1
    assert (await operator.call("GET", "/dead-letters"))[1]["items"] == []
    await failed(operator)
    _, page = await operator.call("GET", "/dead-letters")
    assert (page["items"][0]["count"], page["items"][0]["resolved_at"] is None) == (1, False)


async def test_only_a_rerun_replaces_arguments(operator: Client) -> None:
    wish = {"action": "retry", "filter": {"status": ["failed"]}, "args": {"to": "x@y.z"}}
    status, answer = await operator.call("POST", "/jobs/bulk", wish)
    assert (status, operator.problems(answer).keys()) == (422, {"args"})


async def test_viewers_read_and_change_nothing(operator: Client, viewer: Client) -> None:
    await failed(operator)
    assert len((await viewer.call("GET", "/dead-letters"))[1]["items"]) == 1
    for verb in ("retry", "resolve"):
        assert (await viewer.call("POST", f"/dead-letters/{GROUP}/{verb}"))[0] == 403
