"""One attempt as a receiver sees it and as it is kept: rendered, signed, sent, told without secrets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from tests.servers.receiver import Receiver, receiver, response
from worker.db.base import new_id, utc_now
from worker.errors import EvaluationAway
from worker.jobs.secret import MASK
from worker.settings import Settings
from worker.webhooks import secrets, signing
from worker.webhooks.payload import TEMPLATES
from worker.webhooks.ports import Delivery, Sent
from worker.webhooks.sandbox import Sandbox
from worker.webhooks.sending import HttpSender, SaveChecks
from worker.webhooks.transport import Sender as Transport
from worker.webhooks.urls import Rule

EVENT = {
    "event_id": "019ab1c2-7d3e-7f00-8a11-2b3c4d5e6f70", "event_type": "job.failed",
    "timestamp": "2026-11-22T09:00:00.254Z", "user_id": "ada", "data": {"job_id": "7", "job_name": "s\u00e9nd"},
}  # fmt: skip


class Bench:
    def __init__(self, home: Path) -> None:
        environ = {"M_HOME": str(home), "M_WEBHOOK_ALLOW": "127.0.0.1"}
        self.settings = Settings.from_env(environ)
        self.key = self.settings.secret_key
        self.secret = signing.new_secret()
        self.sandbox = Sandbox()
        self.transport = Transport(Rule.of(self.settings))
        self.sender = HttpSender(self.transport, self.sandbox, self.settings)

    def delivery(self, url: str, **values: Any) -> Delivery:
        fields: dict[str, Any] = {
            "id": new_id(), "epoch": 1, "rev": 2, "due_at": utc_now(), "webhook_id": new_id(), "webhook_name": "hook",
            "event_id": EVENT["event_id"], "event": EVENT, "trigger": "auto", "tries": 1, "number": 1,
            "asked_by": None, "body": None, "url": url, "method": "POST", "headers": {}, "secret_headers": {},
            "payload_template": None, "secret": secrets.seal(self.key, self.secret), "previous_secret": None,
            "previous_until": None, "timeout_s": 10.0, "retry": "short", "max_retries": 3,
        }  # fmt: skip
        return Delivery(**(fields | values))

    async def send(self, there: Receiver, **values: Any) -> Sent:
        return await self.sender.send(self.delivery(there.url, **values))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.sender.close()


async def test_the_receiver_verifies_the_bytes_it_got(bench: Bench) -> None:
    async with receiver() as there:
        sent = await bench.send(there)
    [request] = there.received
    assert Verifier(bench.secret).verify(request.body, request.headers)["type"] == "job.failed"
    assert request.headers["webhook-id"] == EVENT["event_id"]
    assert request.headers["content-type"] == "application/json"
    assert sent.body == request.body
    assert sent.outcome.succeeded
    assert (sent.peer_ip, sent.error) == ("127.0.0.1", None)
    assert sent.total_ms is not None


async def test_a_retry_sends_the_same_bytes_signed_anew(bench: Bench) -> None:
    async with receiver() as there:
        first = await bench.send(there)
        await bench.send(there, body=first.body, payload_template="{{ never_rendered }}", number=2)
    one, other = there.received
    assert one.body == other.body
    Verifier(bench.secret).verify(other.body, other.headers)


async def test_while_both_secrets_hold_either_verifies(bench: Bench) -> None:
    new, until = signing.new_secret(), utc_now() + timedelta(hours=1)
    rotated = {
        "secret": secrets.seal(bench.key, new),
        "previous_secret": secrets.seal(bench.key, bench.secret),
    }
    async with receiver() as there:
        await bench.send(there, **rotated, previous_until=until)
        await bench.send(there, **rotated, previous_until=utc_now())
    both, only = there.received
    for secret in (new, bench.secret):
        Verifier(secret).verify(both.body, both.headers)
    Verifier(new).verify(only.body, only.headers)
    assert len(only.headers["webhook-signature"].split()) == 1


async def test_secret_headers_arrive_and_are_kept_masked(bench: Bench) -> None:
    hidden = secrets.seal_headers(bench.key, {"X-Key": "s3cret"})
    async with receiver(response(200, b"", Set_Cookie="session=1")) as there:
        sent = await bench.send(there, headers={"X-Team": "billing"}, secret_headers=hidden)
    [request] = there.received
    assert (request.headers["x-team"], request.headers["x-key"]) == ("billing", "s3cret")
    kept = {name.lower(): value for name, value in sent.request_headers.items()}
    assert (kept["x-team"], kept["x-key"], kept["webhook-signature"]) == ("billing", MASK, MASK)
    assert "session" not in str(sent.response_headers)


async def test_a_template_makes_the_body(bench: Bench) -> None:
    async with receiver() as there:
        await bench.send(there, payload_template=TEMPLATES["slack"])
    text = json.loads(there.received[0].body)["text"]
    assert "s\u00e9nd" in text
    assert f"{bench.settings.base_url}/job-logs/7" in text
    Verifier(bench.secret).verify(there.received[0].body, there.received[0].headers)


async def test_a_template_that_fails_sends_nothing_and_says_why(bench: Bench) -> None:
    async with receiver() as there:
        sent = await bench.send(there, payload_template='{"a": {{ data.nothing }} }')
    assert there.received == []
    assert (sent.outcome.error_class, sent.outcome.charged, sent.body) == ("template", False, None)
    assert "nothing" in str(sent.error)


async def test_what_cannot_be_evaluated_just_now_is_tried_again(bench: Bench, monkeypatch) -> None:
    async def render(*_: Any) -> None:
        raise EvaluationAway(cause="no processes left")

    monkeypatch.setattr(bench.sandbox, "render", render)
    async with receiver() as there:
        sent = await bench.send(there, payload_template="{}")
    assert sent.outcome.error_class == "evaluation"
    assert not sent.outcome.charged


async def test_a_secret_of_another_key_sends_nothing_and_is_named(bench: Bench) -> None:
    async with receiver() as there:
        sent = await bench.send(there, secret=secrets.seal("another key of 32 characters....", "whsec_x"))
    assert there.received == []
    assert sent.outcome.error_class == "secret"
    assert "M_SECRET_KEY" in str(sent.error)


async def test_a_refused_address_says_the_same_at_save_and_at_send(bench: Bench) -> None:
    checks = SaveChecks(bench.transport, bench.sandbox)
    for url in (
        "http://169.254.169.254/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1:6379/",
    ):
        at_save = await checks.url(url)
        sent = await bench.sender.send(bench.delivery(url))
        assert at_save == sent.error, url
        assert sent.outcome.error_class == "refused", url
    assert await checks.url("http://127.0.0.1:8123/hook") is None
    assert await checks.condition("data.[") is not None
    assert await checks.condition("data.amount") is None
    assert await checks.payload_template("{{ data }}") is None
    assert await checks.payload_template("{{ data ") is not None


async def test_an_answer_is_kept_as_text_whatever_its_bytes_are(bench: Bench) -> None:
    async with receiver(response(500, b"\xff\x00abc")) as there:
        sent = await bench.send(there)
    assert sent.response_body == "\ufffd\ufffdabc"


async def test_retry_after_is_read_from_the_answer(bench: Bench) -> None:
    async with receiver(response(429, b"", Retry_After="7")) as there:
        sent = await bench.send(there)
    assert (sent.outcome.status_code, sent.outcome.retry_after_s) == (429, 7)


async def test_a_content_type_of_ones_own_is_kept(bench: Bench) -> None:
    async with receiver() as there:
        await bench.send(there, headers={"content-type": "application/cloudevents+json"}, method="PUT")
    [request] = there.received
    assert (request.method, request.headers["content-type"]) == ("PUT", "application/cloudevents+json")


async def test_an_id_that_cannot_be_signed_sends_nothing(bench: Bench) -> None:
    async with receiver() as there:
        sent = await bench.sender.send(replace(bench.delivery(there.url), event_id="a.b"))
    assert (there.received, sent.outcome.error_class) == ([], "request")
