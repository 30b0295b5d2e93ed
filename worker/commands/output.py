"""Prints for people and programs; nothing that a job stored can steer the terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any


def say(text: str = "") -> None:
    """One line on stdout. Text that did not come from this program goes through `printable` first."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """One line on stderr."""
    _write(sys.stderr, f"m: {printable(text)}")


def say_json(value: Any) -> None:
    """`value` as JSON in plain ASCII."""
    say(json.dumps(value, indent=2, default=_plain))


def say_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as needed; the last is cut at the terminal's edge."""
    cells = [[cell_text(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]
    edge = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else None
    for row in [[name.upper() for name in head], *cells]:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        say(line if edge is None or len(line) <= edge else line[: edge - 1] + "…")


def cell_text(value: Any) -> str:
    """How one value stands in a table or a list of facts."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return printable(json.dumps(value, default=_plain, ensure_ascii=False))
    return printable(str(value))


def printable(text: str) -> str:
    """`text` in one line with control, formatting and unprintable characters written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


def _write(stream: Any, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
