"""A secret argument: sealed, opened at the call, never shown."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import Secret, job
from worker.errors import Invalid
from worker.jobs import secret

KEY = "a key of at least thirty-two characters"


@job
def task(key: Secret[str], login: Secret[dict[str, str]] | None = None, plain: str = "") -> None: ...


FIELDS = task.definition.fields


def test_it_is_shown_nowhere_by_accident() -> None:
    kept = Secret("sesame")
    assert "sesame" not in f"{kept} {kept!r} {[kept]}"
    assert kept.reveal() == "sesame"
    assert kept == Secret("sesame")


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_what_is_sealed_opens_as_it_was(value: str) -> None:
    sealed = secret.seal(FIELDS, {"key": value, "plain": "p"}, KEY)
    assert sealed["plain"] == "p"
    assert secret.is_sealed(sealed["key"])
    opened, _ = secret.open_args(FIELDS, sealed, KEY)
    assert opened == {"key": value, "plain": "p"}


def test_only_secret_parameters_are_sealed_and_none_stays() -> None:
    assert secret.seal(FIELDS, {"key": "k1234567", "login": None, "plain": "p"}, KEY)["login"] is None
    sealed = secret.seal(FIELDS, {"key": "k1234567", "login": {"user": "ada"}}, KEY)
    assert "ada" not in json.dumps(sealed)
    assert secret.open_args(FIELDS, sealed, KEY)[0]["login"] == {"user": "ada"}
    assert task.definition.bind(secret.open_args(FIELDS, sealed, KEY)[0])["login"].reveal() == {"user": "ada"}


def test_sealing_twice_is_sealing_once() -> None:
    sealed = secret.seal(FIELDS, {"key": "sesame"}, KEY)
    assert secret.seal(FIELDS, sealed, KEY) == sealed


def test_a_foreign_token_is_refused_by_name() -> None:
    sealed = secret.seal(FIELDS, {"key": "sesame"}, KEY)
    with pytest.raises(Invalid, match="key: cannot be decrypted"):
        secret.open_args(FIELDS, sealed, "another key of thirty-two characters!")
    with pytest.raises(Invalid, match="key: cannot be decrypted"):
        secret.seal(FIELDS, {"key": {"$secret": "made up"}}, KEY)


def test_for_eyes_it_is_dots() -> None:
    args = {"key": {"$secret": "token"}, "deep": [{"a": {"$secret": "token"}}], "plain": "p"}
    assert secret.mask(args) == {"key": secret.MASK, "deep": [{"a": secret.MASK}], "plain": "p"}
    assert args["key"] == {"$secret": "token"}


def test_an_edit_keeps_what_came_back_masked() -> None:
    stored = {"key": {"$secret": "token"}, "plain": "p"}
    for returned in (secret.MASK, "", {"$secret": secret.MASK}):
        assert secret.keep(FIELDS, {"key": returned, "plain": "q"}, stored) == {**stored, "plain": "q"}
    assert secret.keep(FIELDS, {"key": "new"}, stored) == {"key": "new"}


def redactor(*values: object) -> secret.Redactor:
    return secret.Redactor(values)


@given(st.text(min_size=secret.SHORTEST, max_size=50), st.text(max_size=30), st.text(max_size=30))
def test_it_is_taken_out_of_texts_reprs_and_json(value: str, before: str, after: str) -> None:
    hide = redactor(value)
    for written in (value, repr(value), json.dumps(value), json.dumps({"a": [value]}), repr({"a": value})):
        shown = hide.text(f"{before}{written}{after}")
        assert value not in shown or value in secret.MASK or value in (before, after)


def test_it_is_taken_out_of_a_traceback() -> None:
    try:
        raise ValueError({"password": "it's\nsesame"})
    except ValueError:
        shown = redactor("it's\nsesame").text(traceback.format_exc())
    assert "sesame" not in shown
    assert secret.MASK in shown


def test_the_lines_of_a_long_secret_are_secrets_too() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"
    assert "kqhkiG9w" not in redactor(key).text("could not parse line 3: kqhkiG9w0BAQEF")


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert redactor("abc", "abcdef").text("abcdef") == secret.MASK


def test_results_are_cleaned_deep_and_stay_json() -> None:
    @dataclass
    class Answer:
        note: str

    hide = redactor("sesame", 12345)
    assert hide.value(
        {"sesame": ["x sesame y", 12345, 1, True, None, ("sesame",)], "made": Answer("sesame")}
    ) == {
        "••••••": ["x •••••• y", "••••••", 1, True, None, ["••••••"]],
        "made": {"note": "••••••"},
    }


def test_nothing_secret_costs_and_changes_nothing() -> None:
    value = {"a": 1}
    assert secret.NOTHING_SECRET.value(value) is value
    assert not secret.NOTHING_SECRET
