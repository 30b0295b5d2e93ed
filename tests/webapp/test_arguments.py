"""A job's arguments in the controls of its form."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest

from webapp.arguments import controls
from worker import job


@job
def task(day: date, at: datetime, clock: time) -> None: ...


FIELDS = task.definition.fields


def test_dates_and_times_have_the_browsers_controls() -> None:
    empty = [control.type for control in controls(FIELDS, {})]
    full = controls(FIELDS, {"day": "2026-11-25", "at": "2026-11-25T10:00:00+01:00", "clock": "09:30:00"})
    assert empty == [control.type for control in full] == ["date", "datetime-local", "time"]
    assert [control.value for control in full] == ["2026-11-25", "2026-11-25T09:00:00", "09:30:00"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", "2026-11-25T10:00:00.123456"),
        ("at", "0001-01-01T00:00:00+05:00"),
        ("clock", "09:30:00.5"),
        ("clock", "09:30:00+02:00"),
        ("day", "+12026-01-01"),
    ],
)
def test_what_a_browsers_control_would_show_as_empty_is_text(name: str, value: str) -> None:
    control = next(one for one in controls(FIELDS, {name: value}) if one.name == name)
    assert (control.type, control.value, control.step) == ("text", value, None)
