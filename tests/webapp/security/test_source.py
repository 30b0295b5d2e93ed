"""What the source itself may not hold: it is cheaper to look than to find out (cases 27, 37, 42, 73)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(path for folder in ("worker", "webapp") for path in (ROOT / folder).rglob("*.py"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
SCRIPTS = sorted((ROOT / "static" / "js").rglob("*.js"))
OUR_WEB_FILES = [*TEMPLATES, *SCRIPTS, *sorted((ROOT / "static" / "css").rglob("*.css"))]

BUILDS_FROM_TEXT = {"pickle", "dill", "shelve", "marshal", "yaml", "jsonpickle", "cloudpickle"}


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_turns_stored_text_into_code_or_objects(path: Path) -> None:  # case 37
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert not imported & BUILDS_FROM_TEXT
    assert not {"eval", "exec", "compile", "__import__", "os.system"} & set(calls(tree))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_template_has_no_inline_script_style_or_handler_and_trusts_no_text(
    path: Path,
) -> None:  # cases 27 and 28
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", text)
    assert not re.search(r"\|\s*safe\b|autoescape\s+false|Markup\(", text)
    for tag, href in re.findall(r'<(a)\b[^>]*?\bhref="([^"]*)"', text):
        assert not href.startswith("{{ job.args"), f"{tag} leads where a job's arguments say"


@pytest.mark.parametrize("path", OUR_WEB_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:  # cases 27 and 73
    text = path.read_text(encoding="utf-8")
    loads = re.findall(
        r"""(?:src|href|action)\s*=\s*["'](?:https?:)?//[^"']*|@import[^;]*|url\(\s*["']?(?:https?:)?//[^)]*""",
        text,
    )
    loads += re.findall(r"""(?:fetch|import)\(\s*["'](?:https?:)?//[^"']*""", text)
    assert [load for load in loads if "://" in load or load.startswith("//")] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_builds_no_code_and_no_markup_from_text(path: Path) -> None:  # case 28
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"\beval\(|new Function|document\.write|\.outerHTML\s*=|insertAdjacentHTML|setTimeout\(\s*[\"']", text
    )


def test_vendored_scripts_are_what_their_checksums_say() -> None:  # case 73
    import hashlib

    vendor = ROOT / "static" / "vendor"
    wanted = dict(
        reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text().splitlines() if line.strip()
    )
    scripts = {path.name for path in vendor.glob("*.js")}
    assert scripts <= {Path(name).name for name in wanted}
    for name, digest in wanted.items():
        assert hashlib.sha256((vendor / Path(name).name).read_bytes()).hexdigest() == digest


def test_every_locked_package_is_pinned_with_its_hashes() -> None:  # case 73
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        packages = [piece for piece in re.split(r"(?m)^(?=[^\s#])", text) if piece.strip()]
        assert len(packages) > 20
        assert not [package for package in packages if "==" not in package or "--hash=sha256:" not in package]
