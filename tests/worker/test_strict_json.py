"""JSON from outside is taken exactly as it was sent, or refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import strict_json
from worker.errors import Invalid

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(strict_json.MIN_INTEGER, strict_json.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def refusal(text: str | bytes) -> str:
    with pytest.raises(Invalid) as caught:
        strict_json.loads(text, "args")
    return caught.value.problems["args"]


@given(PLAIN)
def test_ordinary_json_is_read_as_python_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert strict_json.loads(text) == json.loads(text)
    assert strict_json.loads(json.dumps(value, ensure_ascii=False).encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('[{"b": [{"a": 1, "a": 1}]}]', "'a' twice"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "range of a double"),
        ("[" + "9" * 400 + "]", "400 digits"),
        ("[18446744073709551616]", "20 digits"),
        ("[-9223372036854775809]", "19 digits"),
        (r'["\ud800"]', "lone surrogate"),
        (r'{"\udfff": 1}', "lone surrogate"),
        (r'["a\u0000b"]', "U+0000"),
        (r'{"a\u0000": 1}', "U+0000"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[1] 2", "is not JSON"),
        ("'a'", "is not JSON"),
        (b'"\xff"', "is not UTF-8 (byte 1)"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "deeper than 32"),
        ("[" * 500_000, "deeper than 32"),
    ],
)
def test_what_means_different_things_to_different_readers_is_refused(text: str | bytes, words: str) -> None:
    assert words in refusal(text)


def test_the_deepest_allowed_value_has_32_levels() -> None:
    assert strict_json.loads("[" * 32 + "1" + "]" * 32)
    assert "deeper than 32" in refusal("[" * 33 + "]" * 33)
    assert "deeper than 32" in refusal('{"a":' * 33 + "1" + "}" * 33)


def test_the_largest_integers_of_64_bits_are_kept() -> None:
    assert strict_json.loads("[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert strict_json.loads(r'"\ud83d\ude00"') == "😀"


def test_a_million_keys_that_repeat_are_refused_in_linear_time() -> None:
    text = "{" + ",".join(f'"{n}":0' for n in range(100_000)) + ',"5":0}'
    assert "'5' twice" in refusal(text)
