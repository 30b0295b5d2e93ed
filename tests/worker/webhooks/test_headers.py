"""A webhook's own headers: what would change the request is refused, what is a secret is kept as one and never shown."""

from __future__ import annotations

import pytest

from worker.jobs.secret import MASK
from worker.webhooks import headers


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "webhook-id", "Webhook-Signature", "webhook-anything",
     "X-Webhook-Signature", "Upgrade", "TE", "Expect", "Accept-Encoding", "Proxy-Authorization"],
)  # fmt: skip
def test_a_reserved_name_is_refused(name):
    assert name in headers.problem({name: "x"})


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\r\nY", "Ü", "x" * 101, "X\x00"])
def test_a_name_is_a_token(name):
    assert "has the name" in headers.problem({name: "x"})


@pytest.mark.parametrize("value", ["", " ", "a\r\nb", "a\nb", "a\x00b", "ü", " a", "a ", "x" * 4001])
def test_a_value_is_one_line_of_ascii_and_is_not_repeated_in_the_refusal(value):
    problem = headers.problem({"X-Own": value})
    assert "X-Own" in problem
    assert value == "" or value.strip() == "" or value not in problem or len(value) < 3


def test_two_spellings_of_one_name_and_too_many_are_refused():
    assert "twice" in headers.problem({"X-A": "1", "x-a": "2"})
    assert "51 headers" in headers.problem({f"X-{n}": "1" for n in range(51)})


def test_ordinary_headers_are_good():
    assert (
        headers.problem({"Content-Type": "text/plain", "Authorization": "Bearer a b", "X-Own": "a\tb"})
        is None
    )


def test_named_secrets_and_what_always_is_one_are_kept_apart_whatever_the_spelling():
    given = {"AUTHORIZATION": "Bearer x", "X-Own": "1", "X-Key": "2"}
    assert headers.split(given, ["x-key"]) == ({"X-Own": "1"}, {"AUTHORIZATION": "Bearer x", "X-Key": "2"})


def test_secrets_and_signatures_are_masked_in_what_is_kept_of_a_request():
    sent = [
        ("Host", "h"),
        ("Authorization", "Bearer x"),
        ("X-Key", "2"),
        ("webhook-signature", "v1,a"),
        ("X-Webhook-Signature", "b"),
    ]
    kept = headers.redacted(sent, ["x-KEY"])
    assert kept == {
        "Host": "h",
        "Authorization": MASK,
        "X-Key": MASK,
        "webhook-signature": MASK,
        "X-Webhook-Signature": MASK,
    }


def test_an_answers_headers_are_kept_without_cookies_and_bounded():
    kept = headers.redacted_answer(
        [
            ("set-cookie", "a=b"),
            ("x", "1"),
            ("x", "2"),
            ("y", "z" * 9000),
            *[(f"h{n}", "1") for n in range(200)],
        ]
    )
    assert (kept["set-cookie"], kept["x"], len(kept["y"]), len(kept)) == (
        MASK,
        "1, 2",
        headers.LONGEST_VALUE,
        99,
    )
