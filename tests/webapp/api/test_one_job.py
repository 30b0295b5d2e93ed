"""What may be done with one job over the API, and what is refused because it comes too late or too early."""

from uuid import UUID

import pytest

from tests.webapp.api.conftest import NOWHERE, Client
from worker.db.base import utc_now
from worker.joblogs.models import JobLogLine


async def ended(client: Client, status: str, **columns: object) -> str:
    job = await client.run()
    await client.set(job["job_id"], status="running", epoch=1, attempt=1, started_at=utc_now())
    await client.set(job["job_id"], status=status, **columns)
    return job["job_id"]


async def test_cancel_of_a_waiting_job_is_done_at_once_and_only_once(operator: Client) -> None:
    job = await operator.run()
    path = f"/jobs/{job['job_id']}/cancel"
    assert await operator.call("POST", path) == (
        200, {"job_id": job["job_id"], "status": "cancelled", "cancel": "done"},
    )  # fmt: skip
    status, answer = await operator.call("POST", path)
    assert status == 409
    assert "ended as cancelled" in answer["detail"]


async def test_cancel_of_a_running_job_is_requested(operator: Client) -> None:
    job = await operator.run()
    await operator.set(job["job_id"], status="running", epoch=1, attempt=1, started_at=utc_now())
    status, answer = await operator.call("POST", f"/jobs/{job['job_id']}/cancel")
    assert (status, answer["cancel"], answer["status"]) == (200, "requested", "running")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_retry_queues_an_ended_job_under_its_id(operator: Client, status: str) -> None:
    job_id = await ended(operator, status)
    code, job = await operator.call("POST", f"/jobs/{job_id}/retry")
    assert (code, job["job_id"], job["status"], job["attempt"]) == (200, job_id, "queued", 0)
    assert (await operator.call("POST", f"/jobs/{job_id}/retry"))[0] == 409


async def test_retry_with_arguments_runs_a_new_job(operator: Client) -> None:
    job_id = await ended(operator, "success", result={"sum": 2})
    assert (await operator.call("POST", f"/jobs/{job_id}/retry"))[0] == 409
    code, job = await operator.call("POST", f"/jobs/{job_id}/retry", {"args": {"a": 7}})
    assert (code, job["rerun_of"], job["args"], job["status"]) == (201, job_id, {"a": 7}, "queued")
    code, answer = await operator.call("POST", f"/jobs/{job_id}/retry", {"args": {"a": "x"}})
    assert code == 422
    assert len(answer["errors"]) == 1


async def test_edit_changes_a_waiting_job_and_names_what_is_wrong(operator: Client) -> None:
    job = await operator.run()
    path = f"/jobs/{job['job_id']}"
    status, edited = await operator.call(
        "PATCH",
        path,
        {"args": {"a": 9}, "priority": 0, "run_at": "2099-01-01T00:00:00Z", "note": "n", "tags": ["t"]},
    )
    assert status == 200
    assert (edited["args"], edited["priority"], edited["status"]) == ({"a": 9}, 0, "scheduled")
    assert (edited["note"], edited["tags"]) == ("n", ["t"])
    status, answer = await operator.call(
        "PATCH", path, {"args": 1, "priority": 99, "queue": "x", "status": "success"}
    )
    assert status == 422
    assert operator.problems(answer).keys() == {"args", "priority", "queue", "status"}
    assert (await operator.call("GET", path))[1] == edited


async def test_an_ended_job_keeps_its_arguments_but_takes_a_note(operator: Client) -> None:
    path = f"/jobs/{await ended(operator, 'failed')}"
    assert (await operator.call("PATCH", path, {"args": {"a": 9}}))[0] == 409
    status, job = await operator.call("PATCH", path, {"note": "known", "resolved": True})
    assert (status, job["note"], job["resolved_at"] is None) == (200, "known", False)
    status, job = await operator.call("PATCH", path, {"note": None, "resolved": False})
    assert (status, job["note"], job["resolved_at"]) == (200, None, None)


async def test_delete_takes_only_ended_jobs_away(operator: Client) -> None:
    waiting = await operator.run()
    assert (await operator.call("DELETE", f"/jobs/{waiting['job_id']}"))[0] == 409
    gone = await ended(operator, "failed")
    assert await operator.call("DELETE", f"/jobs/{gone}") == (204, None)
    assert (await operator.call("GET", f"/jobs/{gone}"))[0] == 404
    assert (await operator.call("GET", f"/jobs/{gone}/logs"))[0] == 404
    assert [job["job_id"] for job in (await operator.call("GET", "/jobs"))[1]["items"]] == [waiting["job_id"]]


async def test_an_unknown_id_is_404_everywhere(operator: Client) -> None:  # case 47
    verbs = (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/logs"),
    )
    for job_id in (NOWHERE, "xyz", "1", "..%2f..%2fetc", "%00"):
        for method, path in verbs:
            body = {"note": "x"} if method == "PATCH" else None
            status, answer = await operator.call(method, f"/jobs/{job_id}{path}", body)
            assert (job_id, method, path, status, answer["status"]) == (job_id, method, path, 404, 404)


async def test_a_viewer_changes_nothing(operator: Client, viewer: Client) -> None:
    job = await operator.run()
    for method, path, body in (
        ("PATCH", "", {"note": "x"}), ("DELETE", "", None), ("POST", "/cancel", None), ("POST", "/retry", None),
    ):  # fmt: skip
        assert (await viewer.call(method, f"/jobs/{job['job_id']}{path}", body))[0] == 403
    assert await viewer.call("GET", f"/jobs/{job['job_id']}") == (200, job)


async def test_log_lines_come_in_order_over_all_attempts(operator: Client) -> None:
    job_id = (await operator.run())["job_id"]
    async with operator.engine.database.transaction() as session:
        session.add_all(
            JobLogLine(
                job_id=UUID(job_id),
                epoch=epoch,
                seq=seq,
                at=utc_now(),
                level="info",
                message=f"{epoch}.{seq}",
            )
            for epoch in (1, 2)
            for seq in (1, 2, 3)
        )
    seen, cursor = [], ""
    while cursor is not None:
        status, page = await operator.call("GET", f"/jobs/{job_id}/logs?limit=4&cursor={cursor}")
        assert status == 200
        seen += [line["message"] for line in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    for wrong in ("limit=1001", "cursor=1", "cursor=a-b", "cursor=1-99999999999", "after=3"):
        assert (await operator.call("GET", f"/jobs/{job_id}/logs?{wrong}"))[0] == 422


async def test_attempts_stand_in_the_order_they_were_made(operator: Client) -> None:
    job_id = await ended(operator, "success", result={"sum": 2})
    _, job = await operator.call("GET", f"/jobs/{job_id}")
    assert [(attempt["attempt"], attempt["outcome"]) for attempt in job["attempts"]] == [(1, "success")]
    assert job["duration_seconds"] >= 0
