"""Signatures: the vectors of two independent libraries, strict secrets, rotation, and a receiver that accepts them."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from worker.errors import SecretUnreadable
from worker.webhooks import secrets, signing

V1 = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
V2 = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
A = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
B = "whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC"
INVOICE = b'{"type":"doc.created","timestamp":"2026-01-01T00:00:00Z","data":{"doctype":"Invoice","name":"INV-0001"}}'
ROTATED = b'{"type":"job.failed","data":{"id":7}}'
KEY = "k" * 40


@pytest.mark.parametrize(
    ("secret", "message_id", "second", "body", "expected"),
    [
        (V1, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        (V2, "msg_01JZX5W0D7K3Q4V9N8B2C6F1GH", 1767225600, INVOICE, "0aHsafiMrWjjyt2EXQBWAsQ9F8tc48//Rcs7CqigT7M="),
        (V1, "msg_empty", 1700000000, b"", "LrOGikvEp3ovC4ipwU5sfXzzFy9SMN1tDL3jPPGtLmc="),
        (A, "msg_rot", 1767225602, ROTATED, "UlTqvNeUQKcwGFnSrLivteYPvaQIZZ7or25CsSpNqDk="),
        (B, "msg_rot", 1767225602, ROTATED, "cWqdOehUnaxqpdTsEfjkqfmXPglcjBHxZ/yDTHeYe6k="),
    ],
)  # fmt: skip
def test_signs_as_the_vectors_say(secret, message_id, second, body, expected):
    at = datetime.fromtimestamp(second, UTC)
    sent = signing.headers(message_id, at, body, [secret])
    assert sent["webhook-signature"] == f"v1,{expected}"
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == (message_id, str(second))


def test_a_key_is_what_the_base64_means_with_or_without_padding():
    assert signing.key_of(V1).hex() == "31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0"
    assert signing.key_of(V2) == signing.key_of(V2.rstrip("=")) == bytes(range(32))


def test_the_older_signature_is_the_hex_hmac_of_the_body_under_the_text_of_the_secret():
    sent = signing.headers("m", datetime.now(UTC), b"Hello, World!", [V1, A])
    expected = hmac.new(V1.encode(), b"Hello, World!", hashlib.sha256).hexdigest()
    assert sent["X-Webhook-Signature"] == expected


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "must be whsec_"),
        ("secret", "must be whsec_"),
        ("whsec_", "these are 0"),
        ("whsec_QUFB", "these are 3"),
        ("whsec_" + "QUFB" * 22, "these are 66"),
        ("whsec_MfKQ9r8GKYqr*wjUPD8ILPZIo2LaLaSw", "not base64"),
        ("whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA", "not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\u00e9", "not base64"),
    ],
)
def test_a_bad_secret_is_refused_with_what_is_allowed_and_without_itself(secret, says):
    problem = signing.secret_problem(secret)
    assert problem is not None
    assert says in problem
    assert secret.removeprefix("whsec_") not in problem or len(secret) < 7


def test_a_new_secret_is_good_and_never_the_same():
    made = {signing.new_secret() for _ in range(20)}
    assert len(made) == 20
    assert all(signing.secret_problem(secret) is None for secret in made)
    assert all(len(signing.key_of(secret)) == 32 for secret in made)


@pytest.mark.parametrize("message_id", ["a.1614265330", "", "a b", "a\nb", "x" * 201])
def test_an_id_that_could_be_read_in_two_ways_is_never_signed(message_id):
    with pytest.raises(ValueError, match="message id"):
        signing.headers(message_id, datetime.now(UTC), b"", [V1])


def test_a_time_without_a_zone_and_a_signature_without_a_secret_are_mistakes():
    with pytest.raises(ValueError, match="zone"):
        signing.headers("m", datetime(2026, 1, 1), b"", [V1])  # noqa: DTZ001
    with pytest.raises(ValueError, match="secret"):
        signing.headers("m", datetime.now(UTC), b"", [])


def test_the_second_is_the_same_in_every_zone():
    at = datetime(2026, 1, 1, 0, 0, 2, 999_999, tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert signing.headers("m", at, b"x", [V1]) == signing.headers("m", there, b"x", [V1])
    assert signing.headers("m", at, b"x", [V1])["webhook-timestamp"] == "1767225602"


def test_an_independent_receiver_accepts_it_and_refuses_what_was_changed():
    secret = signing.new_secret()
    body = '{"type": "doc.created", "name": "Ünïcode"}'.encode()
    sent = signing.headers("msg_1", datetime.now(UTC), body, [secret])
    assert Webhook(secret).verify(body, sent) == {"type": "doc.created", "name": "Ünïcode"}
    changed = [
        (body + b" ", sent),
        (body, {**sent, "webhook-id": "msg_2"}),
        (body, {**sent, "webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}),
        (body, {**sent, "webhook-signature": "v1,AAAA"}),
        (body, signing.headers("msg_1", datetime.now(UTC) - timedelta(minutes=6), body, [secret])),
        (body, signing.headers("msg_1", datetime.now(UTC) + timedelta(minutes=6), body, [secret])),
    ]
    for altered, headers in changed:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(altered, headers)


def test_while_a_rotation_overlaps_a_receiver_with_either_secret_accepts_it():
    now = datetime.now(UTC)
    old, new = signing.new_secret(), signing.new_secret()
    sealed_old, sealed_new = secrets.seal(KEY, old), secrets.seal(KEY, new)
    keys = secrets.in_force(KEY, sealed_new, sealed_old, now + secrets.OVERLAP, now)
    sent = signing.headers("msg_1", now, ROTATED, keys)
    assert sent["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert Webhook(secret).verify(ROTATED, sent)

    after = secrets.in_force(KEY, sealed_new, sealed_old, now, now)
    assert after == [new]
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify(ROTATED, signing.headers("msg_1", now, ROTATED, after))


def test_what_is_stored_tells_nothing_and_opens_under_its_own_key_only():
    secret = signing.new_secret()
    sealed = secrets.seal(KEY, secret)
    assert secret not in sealed
    assert signing.PREFIX not in sealed
    with pytest.raises(SecretUnreadable):
        secrets.in_force("another" * 8, sealed, None, None, datetime.now(UTC))
    headers = secrets.seal_headers(KEY, {"Authorization": "Bearer abc"})
    assert "abc" not in headers["Authorization"]
    assert secrets.open_headers(KEY, headers) == {"Authorization": "Bearer abc"}
