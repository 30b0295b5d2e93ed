"""Nothing that a job stored steers the terminal of the person who reads it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.commands.output import cell_text, complain, printable, say_json, say_table

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nfake line\x9b31m\u202etxt.exe\u200b\x7f"


@given(st.text())
def test_printed_text_is_one_line_of_printable_characters(text: str) -> None:
    assert printable(text).isprintable()


def test_ordinary_text_stays_as_it_is() -> None:
    assert printable("Zażółć gęślą jaźń 😀 <b>") == "Zażółć gęślą jaźń 😀 <b>"


def test_control_characters_are_shown_as_escapes() -> None:  # case 74
    assert printable("\x1b[2J\r\n\ud800") == r"\x1b[2J\r\n\ud800"


@pytest.mark.parametrize("value", [HOSTILE, {"to": HOSTILE}, [HOSTILE], {HOSTILE: 1}])
def test_a_cell_holds_no_control_character(value: object) -> None:
    assert cell_text(value).isprintable()


def test_a_table_of_hostile_values_has_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("name", "args"), [[HOSTILE, {"a": HOSTILE}], ["plain", None]])
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert lines[2].split() == ["plain", "-"]


def test_json_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"a": HOSTILE, "at": datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert '"2026-01-02T03:04:05.006Z"' in out


def test_an_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"job {HOSTILE} failed")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("m: job ")
    assert captured.err[:-1].isprintable()
