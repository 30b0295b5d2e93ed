"""One attempt: the body is rendered, signed over its exact bytes, sent to where it may go, and told without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from worker.db.base import utc_now
from worker.errors import EvaluationAway, SecretUnreadable
from worker.settings import Settings
from worker.webhooks import headers, payload, secrets, signing
from worker.webhooks.ports import Delivery, Sent
from worker.webhooks.retries import Outcome, retry_after_s
from worker.webhooks.sandbox import Sandbox
from worker.webhooks.transport import Answer
from worker.webhooks.transport import Sender as Transport
from worker.webhooks.urls import Refused

ERROR_CLASSES: Final = {
    "template": "the payload template made no JSON of this event; trying again cannot help",
    "secret": "a stored secret cannot be read under this M_SECRET_KEY; trying again cannot help",
    "request": "the request could not be signed; trying again cannot help",
    "evaluation": "the process that renders templates could not be started; it is tried again",
    "redirect": "the receiver answered 3xx, which is never followed",
    "status": "the receiver answered neither 2xx nor 3xx",
    "lost": "the courier died while it sent this: nobody knows whether it arrived",
}
"""Beside those of `transport`: what else an attempt can fail with."""


class NotSent(Exception):
    """The attempt ended before a request was made."""

    def __init__(self, error_class: str, error: object, body: bytes | None = None) -> None:
        self.error_class, self.body = error_class, body
        super().__init__(str(error))


class HttpSender:
    """Sends over the pinned transport, by this desk's keys. One for each process; `close` ends what it holds."""

    def __init__(self, transport: Transport, sandbox: Sandbox, settings: Settings) -> None:
        self._transport = transport
        self._sandbox = sandbox
        self._secret_key = settings.secret_key
        self._desk_url = settings.base_url

    async def send(self, delivery: Delivery) -> Sent:
        """One attempt. Whatever goes wrong is part of the answer."""
        started = utc_now()
        try:
            body = delivery.body if delivery.body is not None else await self._render(delivery)
            signed = self._headers(delivery, started, body)
        except NotSent as failure:
            outcome = Outcome(error_class=failure.error_class)
            return Sent(outcome, started, utc_now(), body=failure.body, error=str(failure))
        answer = await self._transport.send(delivery.method, delivery.url, signed, body, delivery.timeout_s)
        return told(answer, delivery, body, started, utc_now())

    async def close(self) -> None:
        self._transport.close()
        await self._sandbox.close()

    async def _render(self, delivery: Delivery) -> bytes:
        if delivery.payload_template is None:
            return payload.standard(delivery.event)
        about = payload.about(delivery.webhook_name, self._desk_url)
        try:
            made = await self._sandbox.render(delivery.payload_template, delivery.event, about)
        except EvaluationAway as error:
            raise NotSent("evaluation", error) from error
        if made.body is None:
            raise NotSent("template", made.error)
        return made.body

    def _headers(self, delivery: Delivery, at: datetime, body: bytes) -> dict[str, str]:
        try:
            own = {**delivery.headers, **secrets.open_headers(self._secret_key, delivery.secret_headers)}
            keys = secrets.in_force(
                self._secret_key, delivery.secret, delivery.previous_secret, delivery.previous_until, at
            )
            signed = signing.headers(delivery.event_id, at, body, keys)
        except SecretUnreadable as error:
            raise NotSent("secret", error, body) from error
        except ValueError as error:
            raise NotSent("request", error, body) from error
        typed = any(name.lower() == "content-type" for name in own)
        return {**({} if typed else {"Content-Type": payload.CONTENT_TYPE}), **own, **signed}


class SaveChecks:
    """What a webhook's fields are judged by when it is saved: the same rule and the same child as when it is sent."""

    def __init__(self, transport: Transport, sandbox: Sandbox) -> None:
        self._transport = transport
        self._sandbox = sandbox

    async def url(self, url: str) -> str | None:
        try:
            await self._transport.check(url)
        except Refused as error:
            return str(error)
        return None

    async def condition(self, condition: str) -> str | None:
        return await self._sandbox.check("condition", condition)

    async def payload_template(self, template: str) -> str | None:
        return await self._sandbox.check("template", template)


def told(answer: Answer, delivery: Delivery, body: bytes, started: datetime, ended: datetime) -> Sent:
    """What is kept of an answer: text without NUL, headers without secrets."""
    received: Mapping[str, str] = {name.lower(): value for name, value in answer.headers}
    answered = answer.status is not None
    return Sent(
        outcome=Outcome(answer.status, answer.error_class, retry_after_s(received.get("retry-after"), ended)),
        started_at=started,
        ended_at=ended,
        body=body,
        request_headers=headers.redacted(answer.request_headers, delivery.secret_headers),
        peer_ip=answer.peer_ip,
        response_headers=headers.redacted_answer(answer.headers) if answered else None,
        response_body=answer.body.decode(errors="replace").replace("\0", "\ufffd") if answered else None,
        response_truncated=answer.truncated,
        dns_ms=answer.times.dns_ms,
        connect_ms=answer.times.connect_ms,
        tls_ms=answer.times.tls_ms,
        first_byte_ms=answer.times.first_byte_ms,
        total_ms=answer.times.total_ms,
        error=answer.error,
    )
