"""Secrets at rest and signatures, each purpose with a key of its own."""

from __future__ import annotations

import pytest

from worker.accounts import crypto
from worker.errors import SecretUnreadable

KEY = "a-secret-key-for-tests-of-40-characters!"


def test_a_secret_comes_back_under_its_key_only() -> None:
    token = crypto.encrypt(KEY, "zażółć \U0001f511")
    assert crypto.decrypt(KEY, token) == "zażółć \U0001f511"
    assert token != crypto.encrypt(KEY, "zażółć \U0001f511")
    with pytest.raises(SecretUnreadable):
        crypto.decrypt(KEY + "x", token)


@pytest.mark.parametrize("token", ["", "x", "gAAAAA", "zażółć"])
def test_what_is_no_secret_of_ours_says_so(token: str) -> None:
    with pytest.raises(SecretUnreadable):
        crypto.decrypt(KEY, token)


def test_a_changed_secret_is_refused() -> None:
    token = crypto.encrypt(KEY, "secret")
    with pytest.raises(SecretUnreadable):
        crypto.decrypt(KEY, token[:-4] + ("A" if token[-4] != "A" else "B") + token[-3:])


def test_a_signature_holds_for_its_purpose_and_text_only() -> None:
    signature = crypto.sign(KEY, "csrf", "session 1")
    assert crypto.signed_by_us(KEY, "csrf", "session 1", signature)
    assert not crypto.signed_by_us(KEY, "flash", "session 1", signature)
    assert not crypto.signed_by_us(KEY, "csrf", "session 2", signature)
    assert not crypto.signed_by_us(KEY + "x", "csrf", "session 1", signature)
    assert not crypto.signed_by_us(KEY, "csrf", "session 1", "zażółć")
    assert not crypto.signed_by_us(KEY, "csrf", "session 1", "")
