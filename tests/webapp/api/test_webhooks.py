"""Webhooks over the API: made with a secret shown once, changed, tried out, tested, replayed, and refused with reasons."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.webapp.api.conftest import NOWHERE, Client
from tests.webapp.webhooks import URL, a_delivery
from worker.jobs.secret import MASK
from worker.webhooks import signing


async def made(client: Client, name: str = "alerts", **fields: Any) -> dict[str, Any]:
    status, webhook = await client.call(
        "POST", "/webhooks", {"name": name, "event": "invoice.>", "url": URL} | fields
    )
    assert status == 201, webhook
    return dict(webhook)


async def happened(client: Client, event_type: str = "invoice.paid", **fields: Any) -> dict[str, Any]:
    status, told = await client.call("POST", "/events", {"event_type": event_type, **fields})
    assert status == 202, told
    return dict(told)


async def delivered(client: Client, webhook: dict[str, Any], status: str = "failed", **fields: Any) -> str:
    return str(await a_delivery(client.engine.database, UUID(webhook["webhook_id"]), status, **fields))


async def test_a_webhook_is_made_read_changed_and_deleted_and_its_secret_is_shown_once(admin: Client) -> None:
    webhook = await made(admin, doctype_filter="Invoice", retry="27h")
    path = f"/webhooks/{webhook['webhook_id']}"
    assert signing.secret_problem(webhook.pop("secret")) is None
    assert (webhook["max_retries"], webhook["timeout_s"], webhook["method"]) == (7, 30.0, "POST")
    assert (await admin.call("GET", path)) == (200, webhook)
    assert (await admin.call("GET", "/webhooks")) == (200, {"items": [webhook], "next_cursor": None})
    status, changed = await admin.call(
        "PATCH", path, {"event": "job.>", "condition": "data.queue", "version": 1}
    )
    assert (status, changed["event"], changed["doctype_filter"], changed["version"]) == (
        200,
        "job.>",
        "Invoice",
        2,
    )
    status, answer = await admin.call("PATCH", path, {"event": "doc.*", "version": 1})
    assert (status, "version 2 now" in answer["detail"]) == (409, True)
    assert (await admin.call("DELETE", path))[0] == 204
    assert (await admin.call("GET", path))[0] == 404


async def test_every_wrong_field_is_named_with_what_is_allowed(admin: Client) -> None:
    status, answer = await admin.call(
        "POST",
        "/webhooks",
        {"name": "", "event": "a.*", "url": URL, "method": "GET", "tz": 1, "timeout_s": 99},
    )
    assert (status, set(admin.problems(answer))) == (422, {"name", "method", "tz", "timeout_s"})
    wish = {
        "name": "x", "event": "a..b", "url": "http://127.0.0.1/", "condition": "data.[", "payload_template": "{% if %}",
        "headers": {"Host": "evil"}, "secret": "whsec_short",
    }  # fmt: skip
    status, answer = await admin.call("POST", "/webhooks", wish)
    assert (status, set(admin.problems(answer))) == (
        422,
        {"event", "url", "condition", "payload_template", "secret"},
    )
    assert "this machine" in admin.problems(answer)["url"]
    status, answer = await admin.call(
        "POST", "/webhooks", {"name": "x", "event": "a", "url": URL, "headers": {"Host": "evil"}}
    )
    assert (status, set(admin.problems(answer))) == (422, {"headers"})
    assert (await admin.call("GET", "/webhooks"))[1]["items"] == []


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "http://metadata.google.internal/", "https://user:pw@h.example/"]
)
async def test_the_rule_of_urls_holds_when_one_is_saved_changed_and_tried(admin: Client, url: str) -> None:
    assert (await admin.call("POST", "/webhooks", {"name": "x", "event": "a", "url": url}))[0] == 422
    webhook = await made(admin)
    status, answer = await admin.call("PATCH", f"/webhooks/{webhook['webhook_id']}", {"url": url})
    assert status == 422
    status, tried = await admin.call("POST", "/webhooks/try", {"url": url, "sample": {"event_type": "a"}})
    assert (status, tried["refused"], tried["delivers"]) == (200, admin.problems(answer)["url"], False)
    assert tried["addresses"] == []


async def test_only_admins_see_where_it_goes_and_nobody_sees_a_secret(
    admin: Client, operator: Client, viewer: Client
) -> None:
    webhook = await made(admin, headers={"X-Team": "a", "Authorization": "Bearer abcdef"})
    log_id = await delivered(admin, webhook)
    path = f"/webhooks/{webhook['webhook_id']}"
    assert webhook["headers"] == {"X-Team": "a"}
    assert webhook["secret_headers"] == ["Authorization"]
    for client in (operator, viewer):
        assert (await client.call("GET", path))[1]["url"] == "https://93.184.216.34/…"
        assert (await client.call("GET", f"/webhook-logs/{log_id}"))[1]["tried"][0][
            "url"
        ] == "https://93.184.216.34/…"
    for answer in (await admin.raw("GET", path), await admin.raw("GET", "/webhooks")):
        assert "abcdef" not in answer.text
        assert "whsec_" not in answer.text
    status, changed = await admin.call("PATCH", path, {"headers": {"X-Team": "b", "Authorization": MASK}})
    assert (status, changed["headers"], changed["secret_headers"]) == (
        200,
        {"X-Team": "b"},
        ["Authorization"],
    )


async def test_a_new_secret_is_shown_once_and_the_old_one_signs_too_for_a_while(admin: Client) -> None:
    webhook = await made(admin)
    path = f"/webhooks/{webhook['webhook_id']}/rotate"
    status, rotated = await admin.call("POST", path, {"overlap_hours": 1})
    assert status == 200
    assert rotated["secret"] != webhook["secret"]
    assert rotated["previous_secret_until"] > rotated["rotated_at"]
    status, rotated = await admin.call("POST", path)
    assert (status, rotated["previous_secret_until"] is not None) == (200, True)
    status, answer = await admin.call("POST", path, {"overlap_hours": 1000, "secret": 5})
    assert (status, set(admin.problems(answer))) == (422, {"overlap_hours", "secret"})


async def test_it_is_switched_off_with_a_reason_and_on_again(admin: Client) -> None:
    path = f"/webhooks/{(await made(admin))['webhook_id']}"
    status, off = await admin.call("POST", f"{path}/disable", {"reason": "moving"})
    assert (status, off["enabled"], off["disabled_reason"], off["disabled_by"]) == (
        200,
        False,
        "moving",
        "a-admin",
    )
    status, on = await admin.call("POST", f"{path}/enable")
    assert (status, on["enabled"], on["disabled_reason"]) == (200, True, None)


async def test_a_test_is_one_delivery_and_five_a_minute_are_enough(admin: Client, operator: Client) -> None:
    webhook = await made(admin, enabled=False)
    path = f"/webhooks/{webhook['webhook_id']}"
    told = await happened(admin)
    status, log = await operator.call("POST", f"{path}/test", {"event_id": told["event_id"]})
    assert (status, log["trigger"], log["event"], log["status"]) == (202, "test", "invoice.paid", "pending")
    for _ in range(4):
        assert (await operator.call("POST", f"{path}/test"))[0] == 202
    answer = await operator.raw("POST", f"{path}/test")
    assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
    other = await made(admin, "other")
    assert (await operator.call("POST", f"/webhooks/{other['webhook_id']}/test"))[0] == 202
    assert len((await operator.call("GET", f"{path}/logs"))[1]["items"]) == 5


async def test_a_dry_run_says_which_part_decides_and_what_would_be_sent_where(
    admin: Client, operator: Client
) -> None:
    webhook = await made(admin, condition="data.amount > `10`", payload_template='{"n": "{{ data.number }}"}')
    told = await happened(admin, data={"amount": 12, "number": 'a"b'})
    wish = {"webhook_id": webhook["webhook_id"], "event_id": told["event_id"]}
    status, tried = await operator.call("POST", "/webhooks/try", wish)
    assert (status, tried) == (
        200,
        {
            "delivers": True, "why": None, "condition_value": "true",
            "condition_error": None, "body": '{"n": "a\\"b"}', "body_error": None,
            "addresses": ["93.184.216.34"], "refused": None,
        },
    )  # fmt: skip
    for changes, reason in [
        ({"event": "job.*"}, "pattern"),
        ({"doctype_filter": "Invoice"}, "doctype"),
        ({"condition": "data.amount > `100`"}, "condition"),
        ({"condition": "abs(data.number)"}, "error"),
    ]:
        tried = (await operator.call("POST", "/webhooks/try", wish | changes))[1]
        assert (tried["delivers"], tried["why"]["reason"]) == (False, reason)
    tried = (
        await operator.call("POST", "/webhooks/try", wish | {"payload_template": '{"n": {{ data.number }}}'})
    )[1]
    assert (tried["delivers"], tried["body"]) == (False, '{"n": a\\"b}')
    assert "JSON" in tried["body_error"]
    assert (await operator.call("POST", "/webhooks/try", {"event": "a"}))[0] == 422
    assert (await operator.call("POST", "/webhooks/try", {"event_id": NOWHERE}))[0] == 404


async def test_why_an_event_was_not_delivered_is_answered_with_what_decided(
    admin: Client, viewer: Client
) -> None:
    told = await happened(admin, "order.paid")
    webhook = await made(admin)
    status, answer = await viewer.call("GET", f"/webhooks/{webhook['webhook_id']}/events/{told['event_id']}")
    assert (status, answer["delivered"]) == (200, False)
    assert answer["why"] == {"reason": "pattern", "detail": "order.paid is not meant by invoice.>"}
    log_id = await delivered(admin, webhook, event_id=told["event_id"])
    answer = (await viewer.call("GET", f"/webhooks/{webhook['webhook_id']}/events/{told['event_id']}"))[1]
    assert (answer["delivered"], answer["why"], answer["log"]["log_id"]) == (True, None, log_id)
    assert (await viewer.call("GET", f"/webhooks/{NOWHERE}/events/{told['event_id']}"))[0] == 404


async def test_deliveries_are_listed_filtered_and_paged_and_one_has_its_attempts(
    admin: Client, viewer: Client
) -> None:
    webhook, other = await made(admin), await made(admin, "other")
    ids = [await delivered(admin, webhook) for _ in range(3)]
    mine = await delivered(admin, other, status="success")
    page = (await viewer.call("GET", "/webhook-logs?limit=3"))[1]
    assert [log["log_id"] for log in page["items"]] == [mine, *reversed(ids[1:])]
    rest = (await viewer.call("GET", f"/webhook-logs?limit=3&cursor={page['next_cursor']}"))[1]
    assert ([log["log_id"] for log in rest["items"]], rest["next_cursor"]) == ([ids[0]], None)
    for query, expected in [
        ("status=success", {mine}), ("event=invoice.*", {*ids, mine}), ("event=job.>", set()),
        ("response_code=500", set(ids)), (f"webhook_id={other['webhook_id']}", {mine}),
        ("after=2099-01-01T00:00:00Z", set()), ("error_class=dns", set()),
    ]:  # fmt: skip
        items = (await viewer.call("GET", f"/webhook-logs?{query}"))[1]["items"]
        assert {log["log_id"] for log in items} == expected, query
    status, answer = await viewer.call("GET", "/webhook-logs?status=lost&response_code=7&after=yesterday&x=1")
    assert (status, set(viewer.problems(answer))) == (422, {"status", "response_code", "after", "x"})

    log = (await viewer.call("GET", f"/webhook-logs/{mine}"))[1]
    assert {
        "webhook",
        "event",
        "status",
        "response_code",
        "response_body",
        "error",
        "timestamp",
    } <= log.keys()
    assert (log["webhook"], log["response_body"], log["payload"]) == ("other", "oops", '{"a":1}')
    assert [(one["number"], one["total_ms"], one["peer_ip"]) for one in log["tried"]] == [
        (1, 8.5, "93.184.216.34")
    ]
    assert (await viewer.call("GET", f"/webhook-logs/{NOWHERE}"))[0] == 404
    assert (await viewer.call("GET", f"/webhooks/{NOWHERE}/logs"))[0] == 404


async def test_what_was_sent_about_people_is_for_admins(admin: Client, operator: Client) -> None:
    log_id = await delivered(admin, await made(admin), doctype="User", event_type="doc.updated")
    assert len((await admin.call("GET", "/webhook-logs"))[1]["items"]) == 1
    assert (await operator.call("GET", "/webhook-logs"))[1]["items"] == []
    assert (await operator.call("GET", f"/webhook-logs/{log_id}"))[0] == 404


async def test_one_delivery_is_sent_again_and_many_as_a_batch_that_is_looked_at_first(
    admin: Client, operator: Client
) -> None:
    webhook = await made(admin)
    ids = [await delivered(admin, webhook) for _ in range(3)]
    status, log = await operator.call("POST", f"/webhook-logs/{ids[0]}/replay")
    assert (status, log["status"], log["attempts"]) == (202, "pending", 1)
    status, answer = await operator.call("POST", f"/webhook-logs/{ids[0]}/replay")
    assert (status, "pending" in answer["detail"]) == (409, True)

    wish = {"webhook_id": webhook["webhook_id"], "status": "failed", "rate_per_s": 4}
    status, seen = await operator.call("POST", "/webhook-logs/replay", wish | {"dry_run": True})
    assert (status, seen["matching"], seen["later"], seen["takes_s"], seen["replay"]) == (
        202,
        2,
        0,
        0.5,
        None,
    )
    await delivered(admin, webhook)
    status, planned = await operator.call("POST", "/webhook-logs/replay", wish | {"cutoff": seen["cutoff"]})
    assert (status, planned["matching"], planned["later"]) == (202, 2, 1)
    replay = planned["replay"]
    assert (replay["status"], replay["filter"]["status"], replay["user"]) == (
        "pending",
        "failed",
        "a-operator",
    )
    path = f"/webhook-replays/{replay['replay_id']}"
    assert (await operator.call("GET", path)) == (200, replay)
    status, stopped = await operator.call("POST", f"{path}/stop")
    assert (status, stopped["stop_requested"]) == (200, True)
    status, answer = await operator.call("POST", "/webhook-logs/replay", {})
    assert (status, set(operator.problems(answer))) == (422, {"filter"})
    assert (await operator.call("GET", f"/webhook-replays/{NOWHERE}"))[0] == 404
