"""The documents tell what the code does: every setting, event, error, command and route is there, and nothing else is."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer

from webapp.api import examples
from webapp.app import create_app
from webapp.errors import STATUSES
from webapp.metrics import exposition
from webapp.queries.metrics import Figures
from worker import cli, errors, testing
from worker.engine import Engine
from worker.events import known
from worker.events.types import DOC_EVENTS
from worker.joblogs import states
from worker.settings import Settings
from worker.webhooks import retries, sending, transport

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NONE = "\N{EN DASH}"
FLAGS = re.MULTILINE | re.DOTALL
FENCE = re.compile(r"^```.*?^```", FLAGS)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_of(folder: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


# Settings


@cache
def variables() -> set[str]:
    """Each variable that `Settings.from_env` reads."""
    asked: set[str] = set()

    class Environ(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return super().get(name, default)

    Settings.from_env(Environ(M_SECRET_KEY="k" * 40))
    return {name for name in asked if not name.endswith("_FILE")}


def test_every_setting_stands_in_its_page_once() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", page("settings.md"), re.MULTILINE)
    assert sorted(named) == sorted(variables())


def test_defaults_in_the_page_are_those_of_the_code(tmp_path: Path) -> None:
    settings = Settings.from_env({"M_HOME": str(tmp_path)})
    for name, default in re.findall(r"^\| `(M_[A-Z_]+)` \| `([^`]+)` \|", page("settings.md"), re.MULTILINE):
        field = name.removeprefix("M_").lower()
        if field in ("home", "public_url"):
            continue  # made from others
        value = getattr(settings, field)
        assert _written(value) == default, name


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_no_page_names_a_variable_that_is_not_read() -> None:
    for path in PAGES:
        named = set(
            re.findall(
                r"\b(?:M_[A-Z][A-Z_]+|(?:DATABASE|NATS|REDIS)_URL(?:_FILE)?)\b", path.read_text("utf-8")
            )
        )
        unknown = {name.removesuffix("_FILE") for name in named} - variables()
        assert not unknown, f"{path.name} names {', '.join(sorted(unknown))}"


# Events


@cache
def event_types() -> set[str]:
    """What the calls of `emit` can say, read from the code; a new way to name an event must be taught to this test."""
    found: set[str] = set()
    for folder in ("worker", "webapp"):
        for path, tree in code_of(folder):
            for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Name) and call.func.id in EMITTERS:
                    found |= _event_of(call, path)
    return found | set(DOC_EVENTS)


EMITTERS = {"emit": 1, "_told": 2, "_changed_queue": 2, "_changed_job": 2}
"""Functions that take an event's type, and at which place."""


def _event_of(call: ast.Call, path: Path) -> set[str]:
    said = call.args[EMITTERS[call.func.id]]  # type: ignore[attr-defined]
    if isinstance(said, ast.Constant):
        return {said.value}
    text = ast.unparse(said)
    if text in ("event", "event_type"):  # inside one of the emitters: its callers say it
        return set()
    if text == "EVENT_OF[status]":
        return set(states.EVENT_OF.values())
    if text in ("f'job.{job.status}'", "f'job.{status}'"):
        return STATUS_EVENTS[path.name]
    raise AssertionError(f"{path.name}:{call.lineno} emits {text}: say in this test which types that can be")


STATUS_EVENTS = {
    "enqueue.py": {"job.queued", "job.scheduled"},
    "actions.py": {"job.queued", "job.scheduled", "job.cancelled"},
    "sweeper.py": {"job.queued", "job.retrying", "job.failed", "job.cancelled"},
}
"""The statuses that these files give a job, where they name an event by its status."""


def test_every_event_stands_in_its_page_once() -> None:
    named = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", page("events.md"), re.MULTILINE)
    assert sorted(named) == sorted(event_types())


def test_whoever_writes_a_pattern_is_shown_every_event() -> None:
    assert sorted(known.TYPES) == sorted(event_types())


def test_an_event_named_by_a_status_is_one_that_states_know() -> None:
    for types in STATUS_EVENTS.values():
        assert {name.removeprefix("job.") for name in types} <= states.MOVES.keys()


# Errors


def error_classes() -> dict[str, type[errors.DeskError]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.DeskError)
    }


def test_every_error_stands_in_its_page_with_its_message_and_status() -> None:
    rows = dict(re.findall(r"^\| `([A-Z]\w+)` \| (.+) \|$", page("errors.md"), re.MULTILINE))
    assert rows.keys() == error_classes().keys()
    for name, kind in error_classes().items():
        message, status, again = (cell.strip() for cell in f"{rows[name]} ".rsplit("| ", 2))
        if name != "Invalid":  # its message is made of its fields' problems
            assert " ".join((kind.__doc__ or "").split()).replace("!r}", "}") in message, name
        known = next((STATUSES[parent] for parent in kind.__mro__ if parent in STATUSES), None)
        assert status == (str(known) if known else "500" if name == "DeskError" else NONE), name
        assert (again == "yes") is kind.retriable, name


def test_every_class_of_a_deliverys_errors_stands_in_the_page_of_webhooks() -> None:
    table = page("webhooks.md").partition("| class | meaning |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted({*transport.ERROR_CLASSES, *sending.ERROR_CLASSES})


def test_every_plan_of_retries_stands_in_the_page_of_webhooks() -> None:
    table = page("webhooks.md").partition("| plan | retries |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+).*\| (\d+) (min|h) \|$", table, re.MULTILINE)
    told = {plan: (int(n), int(size) * (60 if unit == "min" else 3600)) for plan, n, size, unit in rows}
    assert told.keys() == retries.PLANS.keys()
    for plan, (n, seconds) in told.items():
        assert n == retries.DEFAULT_RETRIES[plan]
        assert seconds <= retries.covered_s(plan, n) < seconds * 1.1


# Commands


def commands() -> dict[str, set[str]]:
    """`m job run` -> its options."""

    def walk(command: Any, words: list[str]) -> Iterator[tuple[str, set[str]]]:
        inner = getattr(command, "commands", None)
        for name, child in (inner or {}).items():
            yield from walk(child, [*words, name])
        if inner is None or getattr(command, "invoke_without_command", False):
            yield (
                " ".join(words),
                {
                    option
                    for each in command.params
                    for option in (*each.opts, *each.secondary_opts)
                    if option.startswith("--")
                },
            )

    return dict(walk(typer.main.get_command(cli.app), ["m"]))


def test_every_command_and_option_stands_in_its_page() -> None:
    text = page("cli.md")
    listed = re.findall(r"^\| `(m [a-z -]+?)(?: [A-Z]+)*` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(commands())
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    known = set().union(*commands().values()) | {"--help", "--debug"}
    assert named == known


def test_no_page_names_a_command_that_does_not_exist() -> None:
    groups = {name.rpartition(" ")[0] for name in commands()} - {"m"}
    alone = (
        commands().keys() | groups | {"m test", "m check", "m e2e", "m chaos"}
    )  # the last four are the bootstrap's
    for path in PAGES:
        for noun, verb in re.findall(
            r"(?:^|[ /])m ([a-z][a-z0-9-]*)(?:[ :]([a-z]+))?", _code_in(path), re.MULTILINE
        ):
            named = f"m {noun} {verb}".strip()
            assert named in commands() if f"m {noun}" in groups and verb else f"m {noun}" in alone, (
                f"{path.name} names `{named}`"
            )


def _code_in(path: Path) -> str:
    """What stands between backticks or in shell blocks, a line each."""
    text = path.read_text("utf-8")
    shell = re.findall(r"^```sh\n(.*?)^```", text, FLAGS)
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    return "\n".join([*shell, *inline])


# Routes


@cache
def routes() -> set[str]:
    """`GET /api/v1/jobs/{job_id}`, and `WS …` for sockets."""
    found: set[str] = set()
    with TemporaryDirectory() as home:  # nothing is opened before the application starts
        engine = Engine.create(Settings.from_env({"M_HOME": home}))
    for route in create_app(engine).routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        if path.startswith("/api/") or path in ("/healthz", "/readyz", "/metrics"):
            methods = getattr(route, "methods", None) or {"WS"}
            found |= {f"{method} {path}" for method in methods if method != "OPTIONS"}
    return found


def test_every_route_of_the_api_stands_in_its_page() -> None:
    named = set(re.findall(r"`((?:GET|POST|PATCH|DELETE|PUT|WS) /[^`?]+)`", page("api.md")))
    assert named == routes()


def test_the_example_of_a_job_has_the_fields_of_the_api() -> None:
    example = next(
        block for block in re.findall(r"^```json\n(.*?)^```", page("api.md"), FLAGS) if "rerun_of" in block
    )
    assert json.loads(example).keys() == examples.JOB.keys()


# Metrics


def test_every_metric_stands_in_the_page_of_operations() -> None:
    nothing = Figures({}, {}, {}, [], {}, {}, {}, *[0.0] * 5)
    known = set(re.findall(r"^# HELP (\w+) ", exposition(nothing, {}).decode(), re.MULTILINE))
    table = page("operations.md").partition("## Metrics")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(m_\w+)`", table)) == known


# Pages


async def test_the_readmes_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), FLAGS)
    (tmp_path / "hello_of_the_readme.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    async with testing.desk("hello_of_the_readme") as desk:
        job = await desk.run("greet", name="Ada")
        assert (job.status, job.result, job.progress) == ("success", {"greeted": "Ada"}, 1.0)
        assert await desk.lines(job.id) == ["Hello, Ada!"] * 3


def test_the_code_in_the_guide_is_python() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page("jobs.md"), FLAGS)
    assert blocks
    for block in blocks:
        compile(block, "docs/jobs.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_gives_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shell = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, FLAGS))
    assert re.search(r"^\./m dev\b", shell, re.MULTILINE)
    assert re.search(r"^\./m test\b", shell, re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{path.name} links to {target}"


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_and_tests_that_a_page_names_exist(path: Path) -> None:
    """`worker/joblogs/states.py` and `tests/worker/jobs/test_retry.py::test_name` in backticks are real."""
    for found in re.findall(
        r"`((?:worker|webapp|tests|e2e|templates|static|deploy)/[^`\s*…<>]+)`", path.read_text("utf-8")
    ):
        name, _, inside = found.partition("::")
        there = ROOT / name.split(":")[0]
        assert there.exists(), f"{path.name} names {found}"
        if inside:
            assert re.search(rf"\b(def|class) {re.escape(inside)}\b", there.read_text("utf-8")), (
                f"{path.name} names {found}"
            )
