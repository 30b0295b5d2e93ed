"""`m`, the file at the root: runs on an old Python far enough to find a newer one, and sums up honestly."""

from __future__ import annotations

import ast
import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def m() -> ModuleType:
    loader = SourceFileLoader("m_bootstrap", str(ROOT / "m"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_it_parses_on_python_3_6() -> None:
    ast.parse((ROOT / "m").read_text(), feature_version=(3, 6))


def test_the_closing_line_adds_both_rings_and_counts_a_failed_check_as_an_error(
    m: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rings = [
        {"passed": 300, "failed": 0, "errors": 0, "skipped": 2},
        {"passed": 20, "failed": 0, "errors": 0, "skipped": 0},
    ]
    assert m.close([0, 0], rings, [], 61.5) == 0
    assert capsys.readouterr().out == "===== 320 passed, 2 skipped in 61.50s =====\n"
    assert m.close([0, 0], rings, ["mypy"], 61.5) == 1
    assert "320 passed, 2 skipped, 1 errors" in capsys.readouterr().out
    assert m.close([0, 3], rings, [], 61.5) == 1


def test_a_run_that_left_no_report_is_an_error(m: ModuleType, tmp_path: Path) -> None:
    assert m.read_counts(str(tmp_path / "none.xml"))["errors"] == 1


def test_the_report_of_a_run_is_read(m: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="1" skipped="2"/></testsuites>')
    assert m.read_counts(str(report)) == {"passed": 5, "failed": 1, "errors": 1, "skipped": 2}


def test_an_edited_lock_makes_the_environment_stale(
    m: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyproject.toml", m.RUNTIME, m.DEV):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(m, "ROOT", str(tmp_path))
    monkeypatch.setattr(m, "VENV", str(tmp_path))
    monkeypatch.setattr(m, "runs", lambda _: True)
    assert not m.built(m.RUNTIME)
    (tmp_path / ".m-stamp").write_text(m.fingerprint(m.DEV))
    assert m.built(m.DEV)
    assert m.built(m.RUNTIME), "a development environment runs the desk too"
    (tmp_path / m.DEV).write_text("edited")
    assert not m.built(m.DEV)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "requirements-uv.lock"])
def test_every_pinned_package_has_hashes_and_no_registry_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    packages = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert all("==" in package and "--hash=sha256:" in package for package in packages)


def test_both_locks_pin_the_same_versions() -> None:
    pins = [
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("requirements.lock", "requirements-dev.lock")
    ]
    runtime, dev = pins
    assert {name: dev.get(name) for name in runtime} == runtime
