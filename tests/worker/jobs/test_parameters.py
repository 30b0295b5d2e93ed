"""A signature as form fields, and stored JSON as the values of a call."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic import Field as Limit
from taskiq import TaskiqDepends
from typing_extensions import TypedDict

from worker import JobContext, Secret, job
from worker.errors import BadJobDefinition, Invalid
from worker.jobs.catalogue import JobOffer
from worker.jobs.fields import Field
from worker.jobs.job import Job


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    number: int = 0


class Person(BaseModel):
    name: str
    born: date | None = None
    friends: list[Person] = []


class Box(TypedDict):
    width: float


@job
def everything(
    ctx: JobContext,
    text: str,
    count: int,
    share: float,
    flag: bool,
    day: date,
    at: datetime,
    clock: time,
    span: timedelta,
    price: Decimal,
    color: Color,
    key: uuid.UUID,
    days: list[date],
    address: Address,
    person: Person,
    box: Box,
    secret: Secret[str],
    size: Literal["s", "m"] = "m",
    maybe: int | None = None,
    bounded: Annotated[int, Limit(ge=1, le=5)] = 2,
    anything: Any = None,
) -> None:
    """Takes everything.

    Args:
        text: what to say,
            at length
        count: how often
    """


GOOD: dict[str, Any] = {
    "text": "é😀", "count": 3, "share": 1, "flag": True, "day": "2026-02-03", "at": "2026-02-03T10:00:00Z",
    "clock": "09:30", "span": "PT1H", "price": "12.50", "color": "red", "key": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
    "days": ["2026-02-03"], "address": {"street": "Main"}, "person": {"name": "Ada", "friends": [{"name": "Bob"}]},
    "box": {"width": 1.5}, "secret": "hush",
}  # fmt: skip


def offer_of(made: Job) -> JobOffer:
    """The job as another process knows it: through the JSON of the catalogue."""
    row = json.loads(json.dumps(made.catalogue_row()))
    return JobOffer(
        name=row["name"], queue=row["queue"], max_retries=row["max_retries"], timeout_s=row["timeout_s"],
        fields=tuple(Field.from_json(each) for each in row["parameters"]), args_schema=row["args_schema"],
        retry=row["retry"],
    )  # fmt: skip


@pytest.fixture(params=["code", "catalogue"])
def known(request: pytest.FixtureRequest) -> Any:
    """The job as the process that has its code knows it, and as the web process does."""
    made = everything.definition.check()
    return made if request.param == "code" else offer_of(made)


def problems(known: Any, **wrong: Any) -> dict[str, str]:
    args = {name: value for name, value in {**GOOD, **wrong}.items() if value is not ...}
    with pytest.raises(Invalid) as caught:
        known.validate(args)
    return caught.value.problems


def test_the_fields_tell_how_to_draw_the_form() -> None:
    fields = {field.name: field for field in everything.definition.fields}
    assert {name: field.kind for name, field in fields.items()} == {
        "text": "text", "count": "integer", "share": "number", "flag": "boolean", "day": "date", "at": "datetime",
        "clock": "time", "span": "duration", "price": "decimal", "color": "enum", "key": "uuid", "days": "list",
        "address": "object", "person": "object", "box": "object", "secret": "secret", "size": "enum",
        "maybe": "integer", "bounded": "integer", "anything": "json",
    }  # fmt: skip
    assert [name for name, field in fields.items() if not field.required] == [
        "size",
        "maybe",
        "bounded",
        "anything",
    ]
    assert fields["color"].choices == ("red", "blue")
    assert (fields["size"].choices, fields["size"].default) == (("s", "m"), "m")
    assert (fields["bounded"].minimum, fields["bounded"].maximum) == (1, 5)
    assert fields["maybe"].nullable
    assert fields["days"].item is not None
    assert fields["days"].item.kind == "date"
    assert [(inner.name, inner.required, inner.default) for inner in fields["address"].fields] == [
        ("street", True, None),
        ("number", False, 0),
    ]
    assert (fields["text"].help, fields["count"].help) == ("what to say, at length", "how often")
    assert "ctx" not in fields


def test_fields_survive_the_table() -> None:
    for field in everything.definition.fields:
        assert Field.from_json(json.loads(json.dumps(field.as_json()))).as_json() == json.loads(
            json.dumps(field.as_json())
        )


def test_good_arguments_come_back_unchanged(known: Any) -> None:
    assert known.validate(GOOD) == GOOD


def test_stored_json_becomes_the_values_of_the_call() -> None:
    bound = everything.definition.bind(GOOD)
    assert bound.pop("secret").reveal() == "hush"
    assert bound == {
        "text": "é😀", "count": 3, "share": 1.0, "flag": True, "day": date(2026, 2, 3),
        "at": datetime(2026, 2, 3, 10, tzinfo=UTC), "clock": time(9, 30), "span": timedelta(hours=1),
        "price": Decimal("12.50"), "color": Color.RED, "key": uuid.UUID(GOOD["key"]), "days": [date(2026, 2, 3)],
        "address": Address("Main"), "person": Person(name="Ada", friends=[Person(name="Bob")]),
        "box": {"width": 1.5},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "path", "words"),
    [
        ("count", "x", "count", "must be a whole number, not 'x'"),
        ("count", True, "count", "must be a whole number, not true"),
        ("count", None, "count", "must be a whole number, not null"),
        ("count", ..., "count", "is required"),
        ("share", "1", "share", "must be a number, not '1'"),
        ("flag", "true", "flag", "must be true or false, not 'true'"),
        ("day", "2026-02-30", "day", "must be a date like 2026-11-22, not '2026-02-30'"),
        ("at", "yesterday", "at", "must be a date and time like 2026-11-22T09:30:00Z, not 'yesterday'"),
        ("clock", "25:00", "clock", "must be a time like 09:30:00, not '25:00'"),
        ("span", "long", "span", "must be a duration"),
        ("price", "cheap", "price", "must be a number or a decimal number like 12.50, not 'cheap'"),
        ("color", "green", "color", "must be one of 'red', 'blue', not 'green'"),
        ("size", "xl", "size", "must be one of 's', 'm', not 'xl'"),
        ("key", "1", "key", "must be a UUID"),
        ("days", ["2026-02-03", "x"], "days.1", "must be a date"),
        ("days", "2026-02-03", "days", "must be a list, not '2026-02-03'"),
        ("address", {}, "address.street", "is required"),
        ("person", {"name": "A", "friends": [{"name": 1}]}, "person.friends.0.name", "must be text, not 1"),
        ("box", {}, "box.width", "is required"),
        ("bounded", 9, "bounded", "must be at most 5, not 9"),
        ("maybe", "x", "maybe", "must be a whole number or nothing (null), not 'x'"),
        ("text", "a\x00b", "text", "contains a NUL character"),
        ("text", "\ud800", "text", "surrogate"),
        ("count", 10**400, "count", "integer beyond 64 bits"),
        ("share", float("nan"), "share", "which JSON cannot hold"),
        ("share", float("inf"), "share", "which JSON cannot hold"),
        ("anything", "x" * 300_000, "args", "at most 262,144"),
        ("anything", {"a": {"\x00": 1}}, "anything.a", "has a key that contains a NUL"),
        ("nope", 1, "nope", "is not a parameter of everything, which takes text, count"),
    ],
)
def test_what_does_not_fit_is_named_with_what_is_allowed(
    known: Any, name: str, value: Any, path: str, words: str
) -> None:
    found = problems(known, **{name: value})
    assert list(found) == [path]
    assert words in found[path]


def test_every_problem_is_reported_at_once(known: Any) -> None:
    assert set(problems(known, count="x", day="x", text=..., zz=1)) == {"count", "day", "text", "zz"}


def test_depth_is_bounded_without_recursion(known: Any) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert "deeper than 32" in next(iter(problems(known, anything=deep).values()))
    fits: Any = 1
    for _ in range(31):
        fits = [fits]
    known.validate({**GOOD, "anything": fits})


def test_a_secret_is_never_quoted_in_a_problem(known: Any) -> None:
    assert problems(known, secret=12345) == {"secret": "must be text"}
    assert "hunter2" not in str(problems(known, secret=["hunter2"]))


def test_a_sealed_secret_fits_where_its_value_would(known: Any) -> None:
    sealed = {**GOOD, "secret": {"$secret": "token"}}
    assert known.validate(sealed) == sealed
    assert set(problems(known, secret={"$secret": "token"}, count="x")) == {"count"}


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_of_64_bits_are_kept_exactly(number: int) -> None:
    @job
    def count(n: int) -> None: ...

    args = count.definition.validate({"n": number})
    assert count.definition.bind(json.loads(json.dumps(args))) == {"n": number}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_json_either_comes_through_unchanged_or_is_refused_in_words(value: Any) -> None:
    @job
    def take(thing: Any) -> None: ...

    try:
        args = take.definition.validate({"thing": value})
    except Invalid:
        assert "\\u0000" in json.dumps(value) or "\\ud" in json.dumps(value)
    else:
        assert take.definition.bind(args) == {"thing": value}
        assert offer_of(take.definition).validate(args) == args


@given(json_values)
def test_code_and_catalogue_agree_on_what_fits(value: Any) -> None:
    @job
    def take(thing: int | list[str] | None = None) -> None: ...

    verdicts = []
    for known in (take.definition, offer_of(take.definition)):
        try:
            known.validate({"thing": value})
            verdicts.append(True)
        except Invalid:
            verdicts.append(False)
    if not (isinstance(value, float) and value.is_integer()):  # 1.0 is an integer to JSON Schema
        assert verdicts[0] == verdicts[1]


def test_values_of_python_callers_are_written_as_json() -> None:
    made = everything.definition
    args = {
        **GOOD,
        "day": date(2026, 2, 3),
        "price": Decimal("12.50"),
        "color": Color.RED,
        "person": Person(name="Ada"),
    }
    assert made.validate(args)["day"] == "2026-02-03"
    with pytest.raises(Invalid, match="anything: cannot be written as JSON: it is a object"):
        made.validate({**GOOD, "anything": object()})


def test_what_was_stored_by_an_older_program_is_read_leniently() -> None:
    @job
    def add(a: int) -> None: ...

    assert add.definition.bind({"a": "3"}) == {"a": 3}
    with pytest.raises(Invalid, match="a: must be a whole number, not 'x'"):
        add.definition.bind({"a": "x"})
    with pytest.raises(Invalid, match="b: is not a parameter of add"):
        add.definition.bind({"a": 1, "b": 2})


def test_free_keyword_arguments_are_one_object_field() -> None:
    @job
    def free(a: int, **options: int) -> None: ...

    made = free.definition.check()
    assert (made.fields[-1].name, made.fields[-1].kind, made.fields[-1].rest) == ("options", "object", True)
    for known in (made, offer_of(made)):
        assert known.validate({"a": 1, "x": 2}) == {"a": 1, "x": 2}
        with pytest.raises(Invalid, match="x: must be a whole number, not 'y'"):
            known.validate({"a": 1, "x": "y"})
    assert made.bind({"a": 1, "x": "2"}) == {"a": 1, "x": 2}


def test_dependencies_are_no_arguments() -> None:
    def connection() -> int:
        return 1

    @job
    def uses(a: int, b: int = TaskiqDepends(connection)) -> None: ...

    assert [field.name for field in uses.definition.fields] == ["a"]
    assert uses.definition.dependencies == ("b",)


def test_none_as_a_default_makes_a_parameter_nullable() -> None:
    def as_people_write_it(a: int) -> None: ...

    as_people_write_it.__defaults__ = (None,)
    lax = job(as_people_write_it)
    assert lax.definition.validate({"a": None}) == {"a": None}


def test_a_default_that_is_no_json_is_not_shown() -> None:
    @job
    def odd(a: Any = object(), b: Secret[str] = Secret("hush")) -> None: ...  # noqa: B008

    assert [field.has_default and field.default for field in odd.definition.fields] == [False, "••••••"]


def test_a_secret_inside_something_is_refused() -> None:
    class Login(BaseModel):
        password: Secret[str]

    def nested(login: Login) -> None: ...
    def listed(keys: list[Secret[str]]) -> None: ...

    nested.__annotations__ = {"login": Login}
    for function in (nested, listed):
        with pytest.raises(BadJobDefinition, match="holds a Secret inside"):
            job(function).definition.check()
