"""Webhooks on the desk: made with a form that tries itself, a secret shown once, tested, replayed, explained, for each role."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.webapp.pages.conftest import flash_of
from tests.webapp.site import Browser, Site, running_site
from tests.webapp.webhooks import URL, a_delivery, a_webhook
from webapp.pages import webhook_snippets
from webapp.queries import events
from worker.accounts import crypto
from worker.db.base import new_id, utc_now
from worker.db.session import emit
from worker.webhooks import signing
from worker.webhooks.models import Webhook, WebhookMiss, WebhookReplay

FORM = {
    "name": "Invoices", "event": "invoice.*", "doctype_filter": "Invoice", "condition": "data.amount > `10`", "url": URL,
    "method": "PUT", "ready": "", "payload_template": "", "headers": "X-Team: billing\nX-Other:  a:b ",
    "secret_headers": "Authorization: Bearer abcdef", "secret": "", "retry": "27h", "max_retries": "", "timeout_s": "10",
    "rate_per_s": "2.5", "concurrency": "3", "enabled": "true",
}  # fmt: skip


@pytest.fixture
async def site(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """The queries meet both databases in the tests of the API."""
    async with running_site(sqlite_url, tmp_path) as site:
        yield site


@pytest.fixture
async def ada(site: Site) -> Browser:
    """An admin, signed in."""
    return await site.signed_in("Ada", "admin")


async def stored(site: Site) -> list[Webhook]:
    async with site.database.session() as session:
        return list(await session.scalars(sa.select(Webhook).order_by(Webhook.name)))


async def happened(site: Site, event_type: str, **data: Any) -> str:
    async with site.database.transaction() as session:
        emit(session, event_type, data, "Ada")
    async with site.database.read() as connection:
        return (await events.newest(connection, event_type, "admin")).items[0].event_id


async def test_the_form_makes_a_webhook_and_shows_its_secret_this_once(site: Site, ada: Browser) -> None:
    answer = await ada.post("/webhooks/new", FORM)
    assert answer.status_code == 200, answer.text
    [webhook] = await stored(site)
    secret = crypto.decrypt(site.engine.settings.secret_key, webhook.secret)
    assert answer.text.count(secret) == 1
    assert (webhook.event, webhook.doctype_filter, webhook.condition) == (
        "invoice.*",
        "Invoice",
        "data.amount > `10`",
    )
    assert (webhook.method, webhook.retry, webhook.max_retries, webhook.rate_per_s) == ("PUT", "27h", 7, 2.5)
    assert webhook.headers == {"X-Team": "billing", "X-Other": "a:b"}
    assert list(webhook.secret_headers) == ["Authorization"]
    page = await ada.get(f"/webhooks/{webhook.id}")
    for absent in (secret, "whsec_", "abcdef"):
        assert absent not in page.text.replace("WEBHOOK_SECRET#whsec_", "")
    for shown in ("Invoices", "7 of the plan 27h, for an outage of up to 1 d", "standardwebhooks", "X-Team"):
        assert shown in page.text
    assert "Invoices" in (await ada.get("/webhooks")).text


async def test_a_refused_form_names_each_mistake_and_keeps_what_was_typed(site: Site, ada: Browser) -> None:
    wrong = {
        "name": "", "event": "a..b", "url": "http://10.0.0.1/", "condition": "a.[", "payload_template": "{% if %}",
        "headers": "no colon", "timeout_s": "long", "concurrency": "99",
    }  # fmt: skip
    answer = await ada.post("/webhooks/new", FORM | wrong)
    assert answer.status_code == 422
    for text in ("one header a line", "&#39;long&#39; must be a number"):
        assert text in answer.text
    answer = await ada.post("/webhooks/new", FORM | wrong | {"headers": "", "timeout_s": "10"})
    assert answer.status_code == 422
    for text in (
        "is needed",
        "must be words of a-z",
        "10.0.0.1 is not public",
        "line 1",
        "from 1 to 50",
        'value="a..b"',
    ):
        assert text in answer.text, text
    assert await stored(site) == []


async def test_an_edit_keeps_secret_headers_that_come_masked_and_meets_another_edit(
    site: Site, ada: Browser
) -> None:
    await ada.post("/webhooks/new", FORM)
    [before] = await stored(site)
    form = await ada.get(f"/webhooks/{before.id}/edit")
    assert "Authorization: ••••••" in form.text
    edited = FORM | {
        "secret_headers": "Authorization: ••••••",
        "headers": "",
        "version": "1",
        "event": "invoice.>",
    }
    answer = await ada.post(f"/webhooks/{before.id}/edit", edited)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/webhooks/{before.id}")
    [after] = await stored(site)
    assert (after.event, after.headers, after.secret_headers) == ("invoice.>", {}, before.secret_headers)
    answer = await ada.post(f"/webhooks/{before.id}/edit", edited | {"name": "mine"})
    assert (answer.status_code, "version 2 now" in answer.text, 'value="mine"' in answer.text) == (
        422,
        True,
        True,
    )


async def test_a_body_for_slack_is_put_in_by_a_choice(site: Site, ada: Browser) -> None:
    await ada.post("/webhooks/new", FORM | {"ready": "slack"})
    assert "open the desk" in str((await stored(site))[0].payload_template)


async def test_what_is_typed_is_tried_on_an_event_that_happened(site: Site, ada: Browser) -> None:
    nothing = await ada.post("/webhooks/try", FORM | {"event": "job.*"})
    assert "sample of job.failed" in nothing.text
    assert "<code>job.failed</code>" in nothing.text
    event_id = await happened(site, "invoice.paid", amount=12)
    await happened(site, "invoice.paid", amount=1)
    tried = await ada.post("/webhooks/try", FORM | {"doctype_filter": ""})
    assert "data.amount &gt; `10` is false" in tried.text
    tried = await ada.post("/webhooks/try", FORM | {"doctype_filter": "", "try_event": event_id})
    assert "would be delivered" in tried.text
    assert "93.184.216.34" in tried.text
    assert "&#34;type&#34;:&#34;invoice.paid&#34;" in tried.text
    for fields, says in [
        ({}, "the event is not about a document, not Invoice"),
        ({"event": "a..b"}, "The pattern must be words"),
        ({"condition": "abs(`"}, "cannot be evaluated"),
        ({"url": "http://169.254.169.254/"}, "metadata"),
        ({"payload_template": "{{ data.absent }}"}, "cannot be made"),
    ]:
        assert says in (await ada.post("/webhooks/try", FORM | {"try_event": event_id} | fields)).text, says
    assert await stored(site) == []


async def test_it_is_switched_with_undo_and_deleted_and_brought_back(site: Site, ada: Browser) -> None:
    webhook_id = await a_webhook(site.database)
    answer = await ada.post(f"/webhooks/{webhook_id}/disable", headers={"hx-request": "true"})
    assert f"/webhooks/{webhook_id}/enable" in answer.text
    assert not (await stored(site))[0].enabled
    await ada.post(f"/webhooks/{webhook_id}/enable")
    assert (await stored(site))[0].enabled
    listed = await ada.post(f"/webhooks/{webhook_id}/delete", follow_redirects=True)
    assert "Deleted alerts." in flash_of(listed)
    assert f"/webhooks/{webhook_id}/restore" in listed.text
    assert (await ada.get(f"/webhooks/{webhook_id}")).headers["location"] == "/webhooks"
    await ada.post(f"/webhooks/{webhook_id}/restore")
    assert (await ada.get(f"/webhooks/{webhook_id}")).status_code == 200


async def test_a_new_secret_is_shown_once_and_the_overlap_is_told(site: Site, ada: Browser) -> None:
    webhook_id = await a_webhook(site.database)
    [before] = await stored(site)
    assert "24 hours" in (await ada.get(f"/webhooks/{webhook_id}/rotate")).text
    answer = await ada.post(f"/webhooks/{webhook_id}/rotate", {"overlap_hours": "24", "secret": ""})
    [after] = await stored(site)
    assert after.secret != before.secret
    assert crypto.decrypt(site.engine.settings.secret_key, after.secret) in answer.text
    assert "the one before signs too until" in answer.text
    answer = await ada.post(f"/webhooks/{webhook_id}/rotate", {"overlap_hours": "24", "secret": "whsec_x"})
    assert (answer.status_code, "24 to 64 random bytes" in answer.text) == (422, True)


async def test_a_test_leads_to_its_delivery_and_too_many_are_told(site: Site, ada: Browser) -> None:
    webhook_id = await a_webhook(site.database)
    answer = await ada.post(f"/webhooks/{webhook_id}/test")
    assert answer.headers["location"].startswith("/webhook-logs/")
    page = await ada.get(answer.headers["location"])
    assert "a test by Ada" in page.text
    for _ in range(4):
        await ada.post(f"/webhooks/{webhook_id}/test")
    refused = await ada.post(f"/webhooks/{webhook_id}/test", follow_redirects=True)
    assert "Too many" in flash_of(refused)


async def test_a_delivery_shows_every_attempt_escaped_and_is_sent_again(site: Site, ada: Browser) -> None:
    webhook_id = await a_webhook(site.database)
    log_id = await a_delivery(site.database, webhook_id, answer="<script>alert(1)</script>")
    page = await ada.get(f"/webhook-logs/{log_id}")
    assert "<script>alert" not in page.text
    for shown in (
        "&lt;script&gt;alert",
        "name 1.0 ms · connect 2.0 ms · first byte 3.0 ms",
        URL.replace("&", "&amp;"),
        "93.184.216.34",
        "{&#34;a&#34;:1}",
    ):
        assert shown in page.text, shown
    answer = await ada.post(f"/webhook-logs/{log_id}/replay", headers={"hx-request": "true"})
    assert "It is sent again." in answer.text
    assert (
        "is pending"
        in (await ada.post(f"/webhook-logs/{log_id}/replay", headers={"hx-request": "true"})).text
    )


async def test_deliveries_are_filtered_and_what_the_filter_means_is_sent_again_as_a_plan(
    site: Site, ada: Browser
) -> None:
    webhook_id = await a_webhook(site.database)
    failed = [await a_delivery(site.database, webhook_id) for _ in range(2)]
    await a_delivery(site.database, webhook_id, status="success", event_type="invoice.sent")
    page = await ada.get("/webhook-logs?status=failed&event=invoice.*")
    assert (page.text.count('id="delivery-'), "invoice.sent" in page.text) == (2, False)
    assert "Send these again" in page.text
    wrong = await ada.get("/webhook-logs?status=gone&after=soon&response_code=7")
    assert (wrong.status_code, "must be one of pending" in wrong.text, "must be a time" in wrong.text) == (
        422,
        True,
        True,
    )

    plan = await ada.get(f"/webhook-logs/replay?webhook_id={webhook_id}&status=failed")
    assert "2 deliveries" in plan.text
    cutoff = re.search(r'name="cutoff" value="([^"]+)"', plan.text)[1].replace("&#43;", "+")
    wish = {"webhook_id": str(webhook_id), "status": "failed", "rate": "50", "cutoff": cutoff}
    answer = await ada.post("/webhook-logs/replay", wish)
    path = answer.headers["location"]
    async with site.database.session() as session:
        batch = (await session.scalars(sa.select(WebhookReplay))).one()
    assert (batch.filter["status"], batch.rate_per_s, batch.cutoff) == (
        "failed",
        50,
        datetime.fromisoformat(cutoff),
    )
    assert "Waits for a clerk" in (await ada.get(path)).text
    await ada.post(f"{path}/stop")
    assert "Stopping" in (await ada.get(path)).text
    assert (await ada.post("/webhook-logs/replay", {"rate": "50"})).status_code == 422
    assert len(failed) == 2


async def test_an_event_says_which_webhooks_it_was_delivered_to_and_why_not_to_others(
    site: Site, ada: Browser
) -> None:
    event_id = await happened(site, "invoice.paid", amount=1)
    told = await a_webhook(site.database, "Told")
    await a_webhook(site.database, "Others", event="job.>")
    missed = await a_webhook(site.database, "Missed", condition="data.amount > `10`")
    await a_delivery(site.database, told, status="success", event_id=event_id)
    async with site.database.transaction() as session:
        detail = "data.amount > `10` is false"
        session.add(
            WebhookMiss(
                event_id=event_id,
                webhook_id=missed,
                event_type="invoice.paid",
                reason="condition",
                detail=detail,
                at=utc_now(),
            )
        )
    page = (await ada.get(f"/events/{event_id}")).text
    for words in (
        "Told",
        "Success",
        "invoice.paid is not meant by job.&gt;",
        "data.amount &gt; `10` is false",
    ):
        assert words in page
    page = (await ada.get(f"/webhooks/{missed}")).text
    assert "Not delivered, and why" in page
    assert "data.amount &gt; `10` is false" in page


@pytest.mark.parametrize(
    ("role", "can_edit", "can_test"),
    [("viewer", False, False), ("operator", False, True), ("admin", True, True)],
)
async def test_each_role_sees_what_it_may_do_and_only_admins_the_whole_url(
    site: Site, role: str, can_edit: bool, can_test: bool
) -> None:
    webhook_id = await a_webhook(site.database)
    log_id = await a_delivery(site.database, webhook_id)
    browser = await site.signed_in(role, role)
    pages = [
        (await browser.get(path)).text
        for path in ("/webhooks", f"/webhooks/{webhook_id}", f"/webhook-logs/{log_id}", "/webhook-logs")
    ]
    assert any("s3cret" in page for page in pages) is (role == "admin")
    assert ("/webhooks/new" in pages[0], f"/webhooks/{webhook_id}/edit" in pages[1]) == (can_edit, can_edit)
    assert (f"/webhooks/{webhook_id}/test" in pages[1], f"/webhook-logs/{log_id}/replay" in pages[2]) == (
        can_test,
        can_test,
    )


async def test_what_is_not_there_leads_back_and_says_so(ada: Browser) -> None:
    gone = new_id()
    for path in (
        f"/webhooks/{gone}",
        f"/webhooks/{gone}/edit",
        f"/webhooks/{gone}/rotate",
        f"/webhook-logs/{gone}",
        f"/webhook-replays/{gone}",
    ):
        assert (await ada.get(path)).status_code == 303, path


# What receivers copy


def test_the_python_that_is_shown_verifies_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, body = signing.new_secret(), b'{"type":"a"}'
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    names: dict[str, Any] = {}
    exec(webhook_snippets.PYTHON, names)
    headers = signing.headers("m1", datetime.now(UTC), body, [secret])
    assert names["verified"](body, headers) == {"type": "a"}


@pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("od") is None, reason="only on a machine with openssl"
)
def test_the_shell_that_is_shown_signs_as_the_desk_does() -> None:
    secret = signing.new_secret()
    script = webhook_snippets.CURL.split("curl -i")[0] + 'printf "%s %s %s" "$ID" "$TIME" "$SIGNATURE"'
    said = subprocess.run(
        ["sh", "-c", script],
        env={"WEBHOOK_SECRET": secret, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    message_id, second, signature = said.stdout.split(" ")
    body = re.search(r"BODY='([^']+)'", webhook_snippets.CURL)[1].encode()
    assert f"v1,{signature}" == signing.signature(secret, message_id, int(second), body)
