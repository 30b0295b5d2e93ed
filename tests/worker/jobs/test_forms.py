"""What a person typed becomes arguments."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from worker import Secret, job
from worker.errors import Invalid
from worker.jobs.forms import from_form, to_form


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@job
def task(
    title: str,
    count: int,
    price: Decimal,
    at: datetime,
    level: Level,
    tags: list[str],
    numbers: list[int],
    options: dict[str, Any],
    key: Secret[str],
    loud: bool = True,
    maybe: bool | None = None,
    day: date | None = None,
    body: str = "hello",
    **rest: Any,
) -> None: ...


FIELDS = task.definition.fields
FILLED = {
    "title": " Ada ", "count": " 3 ", "price": "12.50", "at": "2026-02-03T10:00", "level": "2", "tags": "a\r\nb\r\n\r\n",
    "numbers": "1\n2", "options": '{"x": [1]}', "key": "hush", "loud": "on", "maybe": "", "day": "", "body": "", "rest": "",
}  # fmt: skip


def test_a_filled_form_is_arguments_that_fit() -> None:
    args = from_form(FIELDS, FILLED)
    assert args == {
        "title": " Ada ", "count": 3, "price": "12.50", "at": "2026-02-03T10:00Z", "level": 2, "tags": ["a", "b"],
        "numbers": [1, 2], "options": {"x": [1]}, "key": "hush", "loud": True, "body": "",
    }  # fmt: skip
    assert task.definition.validate(args) == args


def test_what_is_left_out_of_a_form() -> None:
    without = {name: value for name, value in FILLED.items() if name not in ("loud", "day", "body")}
    args = from_form(FIELDS, without)
    assert args["loud"] is False  # an unchecked box is not sent
    assert "day" not in args
    assert "maybe" not in args


def test_every_problem_has_its_field() -> None:
    with pytest.raises(Invalid) as caught:
        from_form(
            FIELDS,
            {
                **FILLED,
                "title": "",
                "count": "3.5",
                "price": "x",
                "level": "9",
                "numbers": "1\ntwo",
                "options": "{",
            },
        )
    assert caught.value.problems == {
        "title": "is required",
        "count": "must be a whole number, not '3.5'",
        "price": "must be a decimal number like 12.50, not 'x'",
        "level": "must be one of 1, 2, not '9'",
        "numbers": "must be a whole number, not 'two'",
        "options": caught.value.problems["options"],
    }
    assert "is not JSON" in caught.value.problems["options"]


@pytest.mark.parametrize("bomb", ["[" * 5000, "1" * 5000, '{"a":1,"a":2}', "NaN", '"\\ud800"', '"\\u0000"'])
def test_json_that_cannot_be_kept_is_refused_in_words(bomb: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_form(FIELDS, {**FILLED, "options": bomb})
    assert list(caught.value.problems) == ["options"]


def test_entries_of_the_rest_become_arguments_of_their_own() -> None:
    assert from_form(FIELDS, {**FILLED, "rest": '{"extra": 1}'})["extra"] == 1


def test_a_secret_left_empty_stays_what_it_was() -> None:
    kept = {"key": {"$secret": "token"}}
    assert from_form(FIELDS, {**FILLED, "key": ""}, kept=kept)["key"] == kept["key"]
    assert from_form(FIELDS, {**FILLED, "key": "••••••"}, kept=kept)["key"] == kept["key"]
    assert from_form(FIELDS, {**FILLED, "key": "new"}, kept=kept)["key"] == "new"
    with pytest.raises(Invalid, match="key: is required"):
        from_form(FIELDS, {**FILLED, "key": ""})


def test_a_list_may_come_as_several_values_or_as_json() -> None:
    assert from_form(FIELDS, {**FILLED, "tags": ["a", "", "b"]})["tags"] == ["a", "b"]
    assert from_form(FIELDS, {**FILLED, "tags": '["a, b"]'})["tags"] == ["a, b"]


def test_what_a_form_shows_is_read_back_as_the_same() -> None:
    args = from_form(FIELDS, FILLED)
    shown = {field.name: to_form(field, args.get(field.name)) for field in FIELDS}
    assert shown["key"] == "••••••"
    again = from_form(FIELDS, {**shown, "key": "hush"})
    assert again == args


def test_names_may_carry_a_prefix() -> None:
    assert from_form(FIELDS, {f"arg.{k}": v for k, v in FILLED.items()}, prefix="arg.")["count"] == 3


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("2026-11-25T10:00:00+01:00", "2026-11-25T09:00:00"),
        ("2026-11-25T10:00:00.250000-02:30", "2026-11-25T12:30:00.250000"),
        ("2026-11-25T10:00Z", "2026-11-25T10:00"),
        ("2026-11-25T10:00:00", "2026-11-25T10:00:00"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_a_date_and_time_is_shown_as_the_same_instant_in_utc(kept: str, shown: str) -> None:
    at = next(field for field in FIELDS if field.name == "at")
    assert to_form(at, kept) == shown
