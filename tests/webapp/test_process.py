"""`python -m webapp`: what it cannot start with is a mistake of the configuration, named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from webapp import __main__ as web

CONFIGURATION = 78


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"M_JOB_MODULES": "no_such_module"}, "no_such_module"),
        ({"M_PORT": "99999"}, "M_PORT"),
        ({"M_HOST": "0.0.0.0"}, "M_SECRET_KEY"),
        ({"M_PORT": "8000"}, "m db upgrade"),
    ],
)
def test_a_mistake_of_the_configuration_is_exit_78(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    named: str,
) -> None:
    for name in ("NATS_URL", "REDIS_URL", "DATABASE_URL", "M_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"M_HOME": str(tmp_path), "M_PORT": "8000", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(web, "listen", lambda host, port: None)  # the port is not what is asked here
    assert web.main() == CONFIGURATION
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1


def test_a_process_that_runs_jobs_names_a_database_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NATS_URL", "REDIS_URL", "M_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("M_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "postgresql://desk:a-password@127.0.0.1:1/desk")
    monkeypatch.setattr(web, "listen", lambda host, port: None)
    assert web.main() == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1/desk cannot be used" in said
    assert "a-password" not in said
    assert said.count("\n") == 1
