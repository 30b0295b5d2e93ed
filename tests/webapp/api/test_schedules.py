"""Schedules over the API: made, changed, paused, run, copied, deleted, looked at, and refused with reasons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from tests.webapp.api.conftest import NOWHERE, Client
from worker.db.base import utc_now
from worker.schedules import clock
from worker.schedules.models import ScheduledJob


async def made(client: Client, name: str = "nightly", **fields: Any) -> dict[str, Any]:
    wish = {"name": name, "function": "add", "cron_expression": "0 * * * *", "args": {"a": 1}} | fields
    status, schedule = await client.call("POST", "/schedules", wish)
    assert status == 201, schedule
    return dict(schedule)


async def test_a_schedule_is_made_read_changed_and_deleted(operator: Client) -> None:
    schedule = await made(operator, time_zone="Europe/Warsaw", cron_expression="30 2 * * *", overlap="allow")
    path = f"/schedules/{schedule['schedule_id']}"
    assert schedule["sentence"] == "At 02:30 every day, Europe/Warsaw time"
    assert schedule["next_run"] > schedule["created_at"]
    assert (await operator.call("GET", path)) == (200, schedule)
    status, changed = await operator.call("PATCH", path, {"missed": "all", "version": 1})
    assert (status, changed["missed"], changed["overlap"], changed["version"]) == (200, "all", "allow", 2)
    status, answer = await operator.call("PATCH", path, {"missed": "skip", "version": 1})
    assert (status, "version 2 now" in answer["detail"]) == (409, True)
    assert (await operator.call("DELETE", path))[0] == 204
    assert (await operator.call("GET", path))[0] == 404


async def test_every_wrong_field_is_named(operator: Client) -> None:
    wish = {
        "name": "",
        "function": "add",
        "cron_expression": 5,
        "time_zone": "Mars",
        "missed": "never",
        "tz": 1,
    }
    status, answer = await operator.call("POST", "/schedules", wish)
    assert status == 422
    assert set(operator.problems(answer)) == {"name", "cron_expression", "missed", "tz"}
    wish = {"name": "x", "function": "nothing", "cron_expression": "61 * * * *", "time_zone": "Mars/Base"}
    status, answer = await operator.call("POST", "/schedules", wish)
    assert (status, set(operator.problems(answer))) == (422, {"function", "cron_expression", "time_zone"})
    status, answer = await operator.call(
        "POST", "/schedules", {"name": "x", "function": "add", "cron_expression": "@daily", "args": {"zz": 1}}
    )
    assert status == 422
    assert any(field.startswith("args") for field in operator.problems(answer))


async def test_schedules_are_listed_by_name_a_page_at_a_time(operator: Client) -> None:
    for n in range(5):
        await made(operator, f"s{n}")
    names, cursor = [], ""
    for _ in range(3):
        _, page = await operator.call("GET", f"/schedules?limit=2{cursor}")
        names.append([one["name"] for one in page["items"]])
        cursor = f"&cursor={page['next_cursor']}"
    assert (names, page["next_cursor"]) == ([["s0", "s1"], ["s2", "s3"], ["s4"]], None)
    _, found = await operator.call("GET", "/schedules?q=S3")
    assert [one["name"] for one in found["items"]] == ["s3"]


async def test_a_pause_a_run_and_a_copy(operator: Client) -> None:
    schedule = await made(operator)
    path = f"/schedules/{schedule['schedule_id']}"
    status, paused = await operator.call("POST", f"{path}/pause", {"reason": "holidays"})
    assert (status, paused["next_run"], paused["pause_reason"]) == (200, None, "holidays")
    status, started = await operator.call("POST", f"{path}/run")
    assert status == 202
    _, job = await operator.call("GET", f"/jobs/{started['job_id']}")
    assert (job["scheduled_job"], job["args"]) == (schedule["schedule_id"], {"a": 1})
    _, fires = await operator.call("GET", f"{path}/fires")
    assert [(f["kind"], f["job_id"], f["status"]) for f in fires["items"]] == [
        ("manual", started["job_id"], "queued")
    ]
    _, resumed = await operator.call("POST", f"{path}/resume")
    assert resumed["next_run"] is not None
    status, copy = await operator.call("POST", f"{path}/duplicate")
    assert (status, copy["name"], copy["enabled"], copy["next_run"]) == (201, "nightly copy", False, None)
    status, done = await operator.call(
        "POST", "/schedules/bulk", {"action": "pause", "schedule_ids": [schedule["schedule_id"], NOWHERE]}
    )
    assert (status, done["schedule_ids"]) == (200, [schedule["schedule_id"]])


async def test_what_fired_stands_in_the_history_and_in_the_schedule(operator: Client) -> None:
    schedule = await made(operator)
    due = utc_now().replace(minute=0, second=0, microsecond=0)
    async with operator.engine.database.transaction() as session:
        await session.execute(sa.update(ScheduledJob).values(next_fire_at=due, missed="latest"))
    await clock.fire_due(operator.engine.database)
    path = f"/schedules/{schedule['schedule_id']}"
    _, fires = await operator.call("GET", f"{path}/fires")
    _, now = await operator.call("GET", path)
    [fire] = fires["items"]
    assert (fire["outcome"], fire["kind"], now["last_job_id"]) == ("enqueued", "clock", fire["job_id"])
    assert (now["last_result"], now["last_run"]) == ("queued", fire["fire_at"])
    _, found = await operator.call("GET", f"/jobs?q=schedule:{schedule['schedule_id']}")
    assert [job["job_id"] for job in found["items"]] == [fire["job_id"]]


async def test_a_backfill_is_looked_at_first(operator: Client) -> None:
    schedule = await made(operator)
    until = utc_now().replace(minute=30) - timedelta(hours=1)
    wish = {"since": (until - timedelta(hours=3)).isoformat(), "until": until.isoformat(), "dry_run": True}
    path = f"/schedules/{schedule['schedule_id']}/backfill"
    status, plan = await operator.call("POST", path, wish)
    assert (status, len(plan["runs"]), plan["job_ids"]) == (200, 3, [])
    _, done = await operator.call("POST", path, wish | {"dry_run": False})
    assert (done["runs"], len(done["job_ids"]), done["left_out"]) == (plan["runs"], 3, 0)
    _, again = await operator.call("POST", path, wish)
    assert (again["runs"], again["left_out"]) == ([], 3)


async def test_an_expression_can_be_tried_out(viewer: Client) -> None:
    query = "cron_expression=30+2+*+*+*&time_zone=Europe/Warsaw&count=2&after=2027-03-27T12:00:00Z"
    status, answer = await viewer.call("GET", f"/schedules/preview?{query}")
    assert (status, answer["sentence"]) == (200, "At 02:30 every day, Europe/Warsaw time")
    assert [(one["at"][:16], one["local"]) for one in answer["next"]] == [
        ("2027-03-28T01:00", "2027-03-28T03:00:00+02:00"),
        ("2027-03-29T00:30", "2027-03-29T02:30:00+02:00"),
    ]
    assert "does not exist" in answer["next"][0]["note"]
    status, answer = await viewer.call("GET", "/schedules/preview?cron_expression=61+*+*+*+*&time_zone=Mars")
    assert (status, set(viewer.problems(answer))) == (422, {"cron_expression", "time_zone"})


async def test_an_edit_can_be_tried_out(operator: Client) -> None:
    schedule = await made(operator, cron_expression="0 9 * * *")
    query = f"cron_expression=0+10,11+*+*+*&schedule_id={schedule['schedule_id']}"
    status, answer = await operator.call("GET", f"/schedules/preview?{query}")
    assert (status, answer["adds"], answer["removes"]) == (200, 14, 7)
    assert (await operator.call("GET", f"/schedules/preview?cron_expression=@daily&schedule_id={NOWHERE}"))[
        0
    ] == 404


async def test_viewers_only_read(operator: Client, viewer: Client) -> None:
    schedule = await made(operator)
    path = f"/schedules/{schedule['schedule_id']}"
    assert (await viewer.call("GET", path))[0] == 200
    for method, where, body in (
        ("POST", "/schedules", {}),
        ("PATCH", path, {"missed": "all"}),
        ("DELETE", path, None),
        ("POST", f"{path}/run", None),
        ("POST", f"{path}/pause", None),
        ("POST", f"{path}/backfill", {}),
        ("POST", "/schedules/bulk", {}),
    ):
        assert (await viewer.call(method, where, body))[0] == 403, where


async def test_what_is_not_there_is_404_and_what_code_owns_is_409(operator: Client) -> None:
    for method, end, body in (
        ("GET", "", None),
        ("PATCH", "", {"missed": "all"}),
        ("DELETE", "", None),
        ("POST", "/run", None),
    ):
        assert (await operator.call(method, f"/schedules/{NOWHERE}{end}", body))[0] == 404
    schedule = await made(operator)
    async with operator.engine.database.transaction() as session:
        owned = sa.update(ScheduledJob).where(ScheduledJob.id == UUID(schedule["schedule_id"]))
        await session.execute(owned.values(code_key="add", module="acme.jobs"))
    status, answer = await operator.call("DELETE", f"/schedules/{schedule['schedule_id']}")
    assert (status, "acme.jobs" in answer["detail"]) == (409, True)
