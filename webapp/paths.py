"""Where templates and static files lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder `templates` or `static`."""
    bundled = _HERE / "_bundled" / name
    return bundled if bundled.is_dir() else _HERE.parent / name
