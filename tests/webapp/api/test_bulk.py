"""Bulk actions are counted first, started by one request, refused as a whole, and followed."""

from tests.webapp.api.conftest import NOWHERE, Client
from worker.joblogs import bulk


async def test_a_dry_run_counts_and_changes_nothing(operator: Client) -> None:
    jobs = [await operator.run() for _ in range(3)]
    await operator.call("POST", f"/jobs/{jobs[0]['job_id']}/cancel")
    body = {"action": "cancel", "filter": {"job_name": "add"}, "dry_run": True}
    status, answer = await operator.call("POST", "/jobs/bulk", body)
    assert (status, answer["matching"], answer["will"], answer["later"]) == (200, 3, 2, 0)
    assert (await operator.call("GET", f"/jobs/{jobs[1]['job_id']}"))[1]["status"] == "queued"


async def test_an_operation_is_accepted_carried_out_and_followed(operator: Client) -> None:
    kept = await operator.run("send_email", {"to": "a@b.c"})
    jobs = [await operator.run() for _ in range(3)]
    status, operation = await operator.call(
        "POST", "/jobs/bulk", {"action": "cancel", "filter": {"status": ["queued"], "queue": "sums"}}
    )
    assert (status, operation["action"], operation["done"], operation["user"]) == (
        202,
        "cancel",
        0,
        "a-operator",
    )
    while await bulk.run_pending(operator.engine.database):
        pass
    _, followed = await operator.call("GET", f"/jobs/bulk/{operation['operation_id']}")
    assert (followed["done"], followed["refused"], followed["ended_at"] is None) == (3, 0, False)
    _, page = await operator.call("GET", "/jobs?status=cancelled")
    assert {job["job_id"] for job in page["items"]} == {job["job_id"] for job in jobs}
    assert (await operator.call("GET", f"/jobs/{kept['job_id']}"))[1]["status"] == "queued"
    assert (await operator.call("POST", f"/jobs/bulk/{operation['operation_id']}/stop"))[0] == 409


async def test_one_foreign_id_among_many_refuses_the_whole(operator: Client) -> None:  # case 49
    ids = [(await operator.run())["job_id"] for _ in range(5)]
    body = {"action": "cancel", "filter": {"ids": [*ids, NOWHERE]}}
    status, answer = await operator.call("POST", "/jobs/bulk", body)
    assert status == 422
    assert NOWHERE in operator.problems(answer)["filter.ids"]
    assert not await bulk.run_pending(operator.engine.database)
    _, page = await operator.call("GET", "/jobs?status=queued")
    assert len(page["items"]) == 5


async def test_jobs_after_the_cutoff_are_left_alone(operator: Client) -> None:
    job = await operator.run()
    body = {
        "action": "cancel",
        "filter": {"ids": [job["job_id"]]},
        "cutoff": "2020-01-01T00:00:00Z",
        "dry_run": True,
    }
    _, answer = await operator.call("POST", "/jobs/bulk", body)
    assert (answer["matching"], answer["later"]) == (0, 1)


async def test_every_mistake_is_named_at_once(operator: Client) -> None:
    body = {
        "action": "drop", "filter": {"ids": ["x"], "status": ["nope"], "queue": ">", "user": 1}, "cutoff": 5, "x": 1,
    }  # fmt: skip
    status, answer = await operator.call("POST", "/jobs/bulk", body)
    assert status == 422
    assert operator.problems(answer).keys() == {
        "action", "filter.ids", "filter.status", "filter.queue", "filter.user", "cutoff", "x",
    }  # fmt: skip
    for filter_ in ({}, {"q": "nope:1"}):
        status, _ = await operator.call("POST", "/jobs/bulk", {"action": "cancel", "filter": filter_})
        assert status == 422


async def test_viewers_start_nothing_and_unknown_operations_are_404(operator: Client, viewer: Client) -> None:
    body = {"action": "cancel", "filter": {"job_name": "add"}, "dry_run": True}
    assert (await viewer.call("POST", "/jobs/bulk", body))[0] == 403
    assert (await viewer.call("GET", f"/jobs/bulk/{NOWHERE}"))[0] == 404
    assert (await operator.call("POST", f"/jobs/bulk/{NOWHERE}/stop"))[0] == 404
